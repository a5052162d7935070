"""Driver parameters, under the names of the distribution registry's S3 driver, so that its configuration can be pasted.

They are checked when they are read; a wrong one is named.
"""

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

from worker.errors import ConfigurationError
from worker.units import GIB, MIB

#: Names that ``driver`` may have; :func:`~worker.stores.open_store.register_store` adds to them.
STORE_NAMES: Final = {"s3", "local", "memory"}


def _store_name(value: str) -> str:
    if value not in STORE_NAMES:
        raise ValueError(f"is not one of {', '.join(sorted(STORE_NAMES))}")
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("needs true or false")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("needs a whole number")
    return value


Flag = Annotated[bool, BeforeValidator(_boolean)]
PartSize = Annotated[int, BeforeValidator(_number), Field(ge=5 * MIB, le=5 * GIB)]


class DriverParameters(BaseModel):
    """One ``[storages.NAME]``. Secrets do not show in its repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    driver: Annotated[str, AfterValidator(_store_name)] = "s3"
    bucket: str = ""
    region: str | None = None
    regionendpoint: str = ""  #: a custom endpoint; "" is AWS
    accesskey: SecretStr | None = None
    secretkey: SecretStr | None = None
    sessiontoken: SecretStr | None = None
    secure: Flag = True
    forcepathstyle: Flag = False
    rootdirectory: str = (
        ""  #: prefix of every key; for ``local`` the absolute path of the directory that holds the blobs
    )
    encrypt: Flag = False
    keyid: str | None = None  #: of the KMS key
    storageclass: str | None = None
    checksum: Literal["crc64nvme", "crc32c", "md5", "none"] = "crc64nvme"
    chunksize: PartSize | None = None  #: part size of plain driver calls; jobs use transfer.part_size unless it is set
    multipartcopychunksize: PartSize = 32 * MIB
    multipartcopymaxconcurrency: Annotated[int, BeforeValidator(_number), Field(ge=1)] = 100
    multipartcopythresholdsize: Annotated[int, BeforeValidator(_number), Field(ge=0, le=5 * GIB)] = 32 * MIB

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.driver == "s3" and not self.bucket:
            raise ValueError("bucket: is missing")
        if self.driver == "s3" and not self.region and not self.regionendpoint:
            raise ValueError("region: is missing (or give a regionendpoint)")
        if self.driver == "local" and not self.rootdirectory.startswith("/"):
            raise ValueError("rootdirectory: needs the absolute path of a directory")
        if (self.accesskey is None) != (self.secretkey is None):
            raise ValueError("accesskey, secretkey: give both, or none for boto3's ambient credentials")
        if self.keyid and not self.encrypt:
            raise ValueError("keyid: needs encrypt = true")
        return self

    @property
    def root(self) -> str:
        """The directory within the store below which all keys lie; "" is the whole store, which ``local`` always is."""
        return "" if self.driver == "local" else self.rootdirectory

    def copy_threads(self, part_threads: int) -> int:
        """Parts copied at once: ``local`` copies with this machine's own cores, so at most ``part_threads``."""
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
    """The first complaint of pydantic as ours; it names the setting and hides its value."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = "is no known name"
    if first["type"] == "missing":
        problem = "is missing"
    if first["type"] == "value_error" and ": " in problem:
        last, _, problem = problem.partition(": ")
        name = f"{name}.{last}" if name else last
    return ConfigurationError(name, problem)
