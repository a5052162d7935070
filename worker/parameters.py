"""Driver parameters. Their names are those of the distribution registry's S3 driver, whose configuration can be pasted.

They are checked when they are read, and an error names the wrong one.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

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

from blobferry.signing.storage_parameters import as_boolean, as_storage_class, check_together
from worker.errors import ConfigurationError
from worker.units import GIB, MIB

#: Names that ``driver`` may have; :func:`~worker.stores.open_store.register_store` adds to them.
STORE_NAMES: Final = {"s3", "local", "memory"}


def _store_name(value: str) -> str:
    if value not in STORE_NAMES:
        raise ValueError(f"is not one of {', '.join(sorted(STORE_NAMES))}")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    return value


def _optional_number(value: Any) -> Any:
    return None if value is None else _number(value)


def _optional_boolean(value: Any) -> Any:
    return None if value is None else as_boolean(value)


def _proxies(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):  # from a variable
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a URL, or a mapping of http and https to URLs") from None
    return {"http": value, "https": value} if value else {}


def _identity(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", value):
        raise ValueError("needs 1 to 128 letters, digits, '.', '_', ':' or '-'")
    return value


Flag = Annotated[bool, BeforeValidator(as_boolean)]
OptionalFlag = Annotated[bool | None, BeforeValidator(_optional_boolean)]
PartSize = Annotated[int, BeforeValidator(_number), Field(ge=5 * MIB, le=5 * GIB)]


class DriverParameters(BaseModel):
    """One section ``[storages.NAME]``. Its repr hides secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    driver: Annotated[str, AfterValidator(_store_name)] = "s3"
    bucket: str = ""
    region: str | None = None
    regionendpoint: str = ""  #: a custom endpoint; "" is AWS
    publicendpoint: str = ""  #: the endpoint in the URLs of ``url_for``; "" is the regionendpoint
    #: One name for all endpoints, or mounts, that lead to the same buckets; None: the endpoint, however it is spelled.
    identity: Annotated[str | None, AfterValidator(_identity)] = None
    accesskey: SecretStr | None = None
    secretkey: SecretStr | None = None
    sessiontoken: SecretStr | None = None
    profile: str | None = None  #: of the ambient chain's configuration files
    ca_file: str | None = None  #: PEM file with the certificates that the store's must be signed by
    verify: Flag = True  #: False: any certificate will do
    #: URLs of proxies by "http" and "https"; one URL is for both, {} is none. None: those of the environment.
    proxies: Annotated[dict[Literal["http", "https"], SecretStr] | None, BeforeValidator(_proxies)] = None
    #: Connections that are kept open. None: as many as a process sends requests at once.
    max_pool_connections: Annotated[int | None, BeforeValidator(_optional_number), Field(ge=1)] = None
    secure: Flag = True
    forcepathstyle: Flag = False
    #: Prefix of every key; for ``local`` the absolute path of the directory that holds the blobs.
    rootdirectory: str = ""
    #: Which paths there are: of ASCII letters, digits, ".", "_" and "-" as in the registry, or of any characters.
    keys: Literal["registry", "any"] = "registry"
    encrypt: Flag = False
    keyid: str | None = None  #: of the KMS key
    storageclass: Annotated[str | None, AfterValidator(as_storage_class)] = None  #: "NONE" is none, as in the registry
    acl: Literal["keep", "default"] = "keep"  #: of copies, and of blobs that are written onto
    checksum: Literal["crc64nvme", "crc32c", "md5", "none"] = "crc64nvme"
    #: What is known of the store (docs/storages.md). Each of the settings below wins over it; None: the provider's.
    provider: Literal[
        "aws", "r2", "gcs", "b2", "ceph", "minio", "wasabi", "spaces", "scaleway", "swift", "oss", "other"
    ] = "other"
    part_sizes: Literal["equal", "any"] | None = None  #: "equal": all parts of an upload but the last have one size
    max_parts: Annotated[int | None, BeforeValidator(_optional_number), Field(ge=1, le=10_000)] = None  #: of one upload
    conditional_put: OptionalFlag = None  #: If-Match and If-None-Match of a put
    conditional_copy: OptionalFlag = None
    conditional_complete: OptionalFlag = None
    conditional_delete: OptionalFlag = None
    copy_source_condition: OptionalFlag = None
    copy_options: OptionalFlag = None  #: a copy carries the metadata that it is given
    tagging: OptionalFlag = None
    metadata: OptionalFlag = None  #: a blob keeps its user metadata
    checksum_mode: OptionalFlag = None  #: HEAD takes x-amz-checksum-mode
    upload_size: OptionalFlag = None  #: a completion takes x-amz-mp-object-size
    batch_delete: OptionalFlag = None  #: DeleteObjects
    list_uploads: OptionalFlag = None  #: ListMultipartUploads
    webhook: SecretStr | None = None  #: the URL that the end of each job of this storage is posted to (docs/ends.md)
    webhook_secret: str = "default"  #: the name of the secrets in ``[webhooks.secrets]`` that sign it
    chunksize: PartSize | None = None  #: part size of plain driver calls; jobs use transfer.part_size unless it is set
    multipartcopychunksize: PartSize = 32 * MIB
    multipartcopymaxconcurrency: Annotated[int, BeforeValidator(_number), Field(ge=1)] = 100
    multipartcopythresholdsize: Annotated[int, BeforeValidator(_number), Field(ge=0, le=5 * GIB)] = 32 * MIB

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_together(self)
        return self

    @property
    def root(self) -> str:
        """The directory within the store below which all keys lie; "" is the whole store, which ``local`` always is."""
        return "" if self.driver == "local" else self.rootdirectory

    def copy_threads(self, part_threads: int) -> int:
        """How many parts are copied at once. ``local`` copies on this machine, so at most ``part_threads``."""
        threads = self.multipartcopymaxconcurrency
        return min(threads, part_threads) if self.driver == "local" else threads

    @classmethod
    def parse(cls, parameters: Mapping[str, Any]) -> Self:
        """Check the parameters. Raises ConfigurationError naming the first wrong one."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            raise configuration_error(error) from None  # the cause would show the values


def configuration_error(error: ValidationError) -> ConfigurationError:
    """The first error of pydantic as a ConfigurationError. It names the setting and hides the value."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = "is an unknown setting"
    if first["type"] == "missing":
        problem = "is missing"
    if first["type"] == "value_error" and ": " in problem:
        last, _, problem = problem.partition(": ")
        name = f"{name}.{last}" if name else last
    return ConfigurationError(name, problem)
