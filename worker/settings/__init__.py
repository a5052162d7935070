"""Settings: ``blobferry.toml``, overridden by BLOBFERRY_ variables, as frozen values. Only this module reads them.

Sizes are in bytes, times in seconds. A ConfigurationError names the first unknown or invalid setting. The defaults are
stated here and nowhere else.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from blobferry.checks.source_urls import check_webhook
from blobferry.messages.broker_address import BrokerOptions, broker_address
from blobferry.sealing import Sealer, parse_keys
from blobferry.service_links import is_service_link
from blobferry.sql.database_url import parse_url
from worker.errors import ConfigurationError
from worker.parameters import DriverParameters, configuration_error
from worker.settings.sections import (
    BrokerSettings,
    LeaseSettings,
    RetentionSettings,
    RetrySettings,
    SourcesSettings,
    SweepSettings,
    TransferSettings,
    absolute_path,
)
from worker.settings.webhooks_section import WebhooksSettings
from worker.units import MIB

__all__ = [
    "BrokerSettings",
    "LeaseSettings",
    "RetentionSettings",
    "RetrySettings",
    "Settings",
    "SourcesSettings",
    "SweepSettings",
    "TransferSettings",
    "WebhooksSettings",
    "load_settings",
]

PREFIX: Final = "BLOBFERRY_"
_UNSET: Final = "BLOBFERRY_CONFIG to the path of a blobferry.toml, which is not set, so that no file was read"
#: Variables that are no settings: one names the file, the tests set others.
FOREIGN: Final = re.compile(r"BLOBFERRY_(CONFIG|TEST_.*)")


def _keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    Sealer([key.get_secret_value() for key in keys])
    return keys


class Settings(BaseSettings):
    """All settings of the worker."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: SecretStr  #: PostgreSQL, or SQLite for a single host
    broker_url: SecretStr = SecretStr("redis://localhost:6379/0")  #: Redis, Valkey, or the sentinels of one
    result_backend: SecretStr | None = None  #: None: the broker
    #: Fernet keys: the first encrypts source URLs that hold secrets, all decrypt. Empty: URLs are stored as given.
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(parse_keys), AfterValidator(_keys)] = ()
    concurrency: int = Field(default=2, ge=1, le=256)  #: jobs that one worker runs at a time
    #: Reads that a worker answers at a time beside its jobs, by a process of their own. 0: reads wait for a free slot.
    reads: int = Field(default=4, ge=0, le=64)
    #: Slices and reads after which a child is replaced, which costs seconds of CPU. None: its memory alone decides.
    max_tasks_per_child: int | None = Field(default=None, ge=1)
    #: Bytes after which a child is replaced, between two slices. None: twice the memory that it needs.
    max_memory_per_child: int | None = Field(default=None, ge=64 * MIB)
    keys: Literal["registry", "any"] = "registry"  #: of storages that set none; the client has a variable of this name
    #: Seconds after a SIGTERM within which the worker ends, whatever is away; runs hand over their jobs meanwhile.
    drain_seconds: float = Field(default=8, ge=1, le=3600)
    #: Where clients spool uploads, under the path by which they have it. Sources may lie there, and are removed.
    spool_dir: Annotated[Path | None, AfterValidator(absolute_path)] = None
    broker: BrokerSettings = BrokerSettings()
    storages: dict[str, DriverParameters] = Field(default_factory=dict)  #: by name
    sources: SourcesSettings = SourcesSettings()
    transfer: TransferSettings = TransferSettings()
    lease: LeaseSettings = LeaseSettings()
    retry: RetrySettings = RetrySettings()
    retention: RetentionSettings = RetentionSettings()
    sweep: SweepSettings = SweepSettings()
    webhooks: WebhooksSettings = WebhooksSettings()

    @field_validator("storages")
    @classmethod
    def _with_keys(cls, storages: dict[str, DriverParameters], info: ValidationInfo) -> dict[str, DriverParameters]:
        keys = {"keys": info.data.get("keys", "registry")}
        return {
            name: storage if "keys" in storage.model_fields_set else storage.model_copy(update=keys)
            for name, storage in storages.items()
        }

    @model_validator(mode="after")
    def _signs_webhooks_of_storages(self) -> Self:
        for name, storage in self.storages.items():
            if storage.webhook is None:
                continue
            url = check_webhook(f"storages.{name}.webhook", storage.webhook.get_secret_value())
            if not (url.startswith("https:") or self.webhooks.allow_http):
                raise ValueError(f"storages.{name}.webhook: is no https: URL (webhooks.allow_http would allow it)")
            if storage.webhook_secret not in self.webhooks.secrets:
                where = f"webhooks.secrets.{storage.webhook_secret}"
                raise ValueError(f"storages.{name}.webhook_secret: there is no {where} to sign with")
        return self

    @property
    def broker_options(self) -> BrokerOptions:
        """The section ``[broker]`` as clients take it."""
        return BrokerOptions(
            **self.broker.model_dump() | {"sentinel_password": self.broker.sentinel_password.get_secret_value()}
        )

    @property
    def source_roots(self) -> tuple[Path, ...]:
        """The directories below which the files of sources may lie."""
        return (*self.sources.file_roots, *((self.spool_dir,) if self.spool_dir else ()))

    @property
    def max_child_memory(self) -> int:
        """Bytes after which a child is replaced."""
        needed = 120 * MIB + self.transfer.part_threads * min(self.transfer.part_size, 64 * MIB)
        return self.max_memory_per_child or 2 * needed

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables override the file; there are no other sources."""
        variables, path = _Variables(settings_cls), os.environ.get("BLOBFERRY_CONFIG")
        return (variables, TomlConfigSettingsSource(settings_cls, toml_file=path)) if path else (variables,)


class _Variables(EnvSettingsSource):
    """Variables that are settings. The links of a service named blobferry-storages--x would look like some."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        links = {name.lower() for name in os.environ if _is_foreign(name)}
        return {name: value for name, value in super()._load_env_vars().items() if name.lower() not in links}


@cache
def load_settings() -> Settings:
    """The settings of this process, read once. Raises ConfigurationError naming the first wrong one."""
    path = os.environ.get("BLOBFERRY_CONFIG")
    if path and not Path(path).is_file():
        raise ConfigurationError("BLOBFERRY_CONFIG", f"file {path} does not exist")
    _refuse_unknown_variables()
    try:
        settings = Settings()  # type: ignore[call-arg]  # the environment gives the arguments
    except ValidationError as error:
        wrong = configuration_error(error)
        if not path and wrong.problem == "is missing":
            wrong = ConfigurationError(wrong.name, f"is missing: set {PREFIX}{wrong.name.upper()}, or {_UNSET}")
        raise wrong from None  # the cause would show the values
    except ValueError as error:
        raise ConfigurationError(path or "environment", str(error)) from error
    parse_url(settings.database_url.get_secret_value())
    broker_address(settings.broker_url.get_secret_value(), settings.broker_options)
    if settings.result_backend:
        broker_address(settings.result_backend.get_secret_value(), settings.broker_options, setting="result_backend")
    return settings


def _is_foreign(name: str) -> bool:
    return bool(FOREIGN.fullmatch(name)) or is_service_link(name, os.environ[name])


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith(PREFIX) and not _is_foreign(name) and name.split("__")[0] not in known:
            raise ConfigurationError(name, f"is an unknown setting; known settings: {', '.join(sorted(known))}")
