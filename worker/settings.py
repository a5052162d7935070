"""Settings: ``blobferry.toml``, overridden by BLOBFERRY_ variables, as frozen values. Only this module reads them.

Sizes are in bytes, times in seconds. A ConfigurationError names the first unknown or invalid setting. The defaults are
stated here and nowhere else.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
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

from blobferry.messages.broker_address import BrokerOptions, broker_address
from blobferry.sealing import Sealer, parse_keys
from blobferry.sql.database_url import parse_url
from worker.errors import ConfigurationError
from worker.parameters import DriverParameters, configuration_error
from worker.units import GIB, MIB

PREFIX: Final = "BLOBFERRY_"
#: Variables that are no settings: one names the file, the tests set others.
FOREIGN: Final = re.compile(r"BLOBFERRY_(CONFIG|TEST_.*)")
#: What Kubernetes sets in every pod for a service that is named blobferry or blobferry-something, as NAME=value.
#: Source: Kubernetes, "Service", environment variables; pkg/kubelet/envvars/envvars.go
SERVICE_LINK: Final = re.compile(
    r"BLOBFERRY_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=.*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=.*)"
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def _absolute(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    for root in roots:
        _absolute_path(root)
    return roots


def _absolute_path(path: Path | None) -> Path | None:
    if path is not None and not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    return path


class SourcesSettings(_Section):
    """``[sources]``: which files and addresses jobs may reach."""

    #: Directories below which ``file:`` URLs may lie. Empty: jobs may use no files.
    file_roots: Annotated[tuple[Path, ...], AfterValidator(_absolute)] = ()
    http_allow_private: bool = False  #: whether ``http(s):`` sources may have addresses that are not public
    http_max_size: int | None = Field(default=None, ge=0)  #: bytes; None: as large as a blob may be
    http_max_redirects: int = Field(default=5, ge=0, le=20)
    http_connect_seconds: float = Field(default=5, gt=0)
    http_read_seconds: float = Field(
        default=30, gt=0
    )  #: longest wait for a byte; all headers must arrive within twice that
    #: Holds the bytes of servers without range requests; should not be a tmpfs, which is memory.
    http_spool_directory: Annotated[Path, AfterValidator(_absolute_path)] = Path("/var/tmp")
    #: Certificate authorities to trust in addition to the system's.
    http_ca_file: Annotated[Path | None, AfterValidator(_absolute_path)] = None


class BrokerSettings(_Section):
    """``[broker]``: what the URL of the broker, or of the result backend, does not say."""

    master_name: str = ""  #: of the server that the sentinels of a ``sentinel://`` URL watch
    sentinel_username: str = ""
    sentinel_password: SecretStr = SecretStr("")
    tls: bool = False  #: for sentinels and their server; ``rediss://`` says it itself
    ca_file: str = ""  #: certificate authorities to trust instead of the system's
    cert_file: str = ""  #: of a client certificate
    key_file: str = ""


class TransferSettings(_Section):
    """``[transfer]``: how bytes move. A child needs 120 MiB + part_threads × min(part_size, 64 MiB) of memory."""

    part_threads: int = Field(default=4, ge=1, le=64)
    part_size: int = Field(default=16 * MIB, ge=5 * MIB, le=5 * GIB)
    slice_seconds: float = Field(default=300, gt=0, le=3600)  #: after which a job gives its slot to the next one
    verify_seconds: float = Field(default=300, ge=0)  #: within which Stat must show the outcome


class LeaseSettings(_Section):
    """``[lease]``: how long a job stays with a worker that no longer renews its lease."""

    seconds: float = Field(default=30, ge=2, le=600)
    heartbeat_seconds: float = Field(default=10, gt=0)
    margin_seconds: float = Field(default=5, gt=0)  #: before the end of the lease, in which a run begins no new request

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.heartbeat_seconds + self.margin_seconds >= self.seconds:
            raise ValueError("heartbeat_seconds + margin_seconds must be less than seconds")
        return self


class RetrySettings(_Section):
    """``[retry]``: what follows a transient error."""

    max_attempts: int = Field(default=8, ge=1)  #: runs in a row without progress that fail a job
    base_seconds: int = Field(default=2, ge=1)
    max_seconds: int = Field(default=600, ge=1)
    max_restarts: int = Field(default=3, ge=0)  #: how often the upload of one job may begin again from byte 0


class RetentionSettings(_Section):
    """``[retention]``: how long uploads and rows are kept that no run needs."""

    failed_upload_seconds: float = Field(default=24 * 3600, ge=0)  #: of a job that ran out of retries
    paused_upload_seconds: float = Field(default=7 * 24 * 3600, ge=0)
    job_seconds: float = Field(default=30 * 24 * 3600, ge=0)  #: rows of finished jobs
    tombstone_seconds: float = Field(default=30 * 24 * 3600, ge=0)  #: ids of pruned jobs
    abort_recheck_seconds: float = Field(
        default=3600, ge=0
    )  #: until a second abort, as parts may arrive after the first


class SweepSettings(_Section):
    """``[sweep]``: the caretaker."""

    interval_seconds: float = Field(default=5, gt=0)


def _keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    Sealer([key.get_secret_value() for key in keys])
    return keys


class Settings(BaseSettings):
    """All settings of the worker."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: SecretStr
    broker_url: SecretStr = SecretStr("redis://localhost:6379/0")
    result_backend: SecretStr | None = None  #: None: the broker
    #: Fernet keys: the first encrypts source URLs that hold secrets, all decrypt. Empty: URLs are stored as given.
    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(parse_keys), AfterValidator(_keys)] = ()
    concurrency: int = Field(default=2, ge=1, le=256)  #: jobs that one worker runs at a time
    max_tasks_per_child: int = Field(default=200, ge=1)  #: slices and reads after which a child is replaced
    #: Bytes after which a child is replaced, between two slices. None: twice the memory that it needs.
    max_memory_per_child: int | None = Field(default=None, ge=64 * MIB)
    #: Seconds after a SIGTERM within which the worker ends, whatever is away; runs hand over their jobs meanwhile.
    drain_seconds: float = Field(default=8, ge=1, le=3600)
    broker: BrokerSettings = BrokerSettings()
    storages: dict[str, DriverParameters] = Field(default_factory=dict)  #: by name
    sources: SourcesSettings = SourcesSettings()
    transfer: TransferSettings = TransferSettings()
    lease: LeaseSettings = LeaseSettings()
    retry: RetrySettings = RetrySettings()
    retention: RetentionSettings = RetentionSettings()
    sweep: SweepSettings = SweepSettings()

    @property
    def broker_options(self) -> BrokerOptions:
        """The section ``[broker]`` as clients take it."""
        return BrokerOptions(
            **self.broker.model_dump() | {"sentinel_password": self.broker.sentinel_password.get_secret_value()}
        )

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
        raise configuration_error(error) from None  # the cause would show the values
    except ValueError as error:
        raise ConfigurationError(path or "environment", str(error)) from error
    parse_url(settings.database_url.get_secret_value())
    broker_address(settings.broker_url.get_secret_value(), settings.broker_options)
    if settings.result_backend:
        broker_address(settings.result_backend.get_secret_value(), settings.broker_options, setting="result_backend")
    return settings


def _is_foreign(name: str) -> bool:
    return bool(FOREIGN.fullmatch(name) or SERVICE_LINK.fullmatch(f"{name}={os.environ[name]}"))


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith(PREFIX) and not _is_foreign(name) and name.split("__")[0] not in known:
            raise ConfigurationError(name, f"is an unknown setting; known settings: {', '.join(sorted(known))}")
