"""The parameters of a storage that its URLs depend on, as the worker's configuration has them, and their checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from blobferry.errors import ConfigurationError

#: The worker's other parameters, which its configuration may hold beside these.
ELSE: Final = frozenset(
    {"identity", "ca_file", "verify", "proxies", "max_pool_connections", "acl", "checksum", "provider", "part_sizes"}
    | {"max_parts", "conditional_put", "conditional_copy", "conditional_complete", "conditional_delete"}
    | {"copy_source_condition", "copy_options", "tagging", "metadata", "checksum_mode", "upload_size", "batch_delete"}
    | {"list_uploads", "chunksize", "multipartcopychunksize", "multipartcopymaxconcurrency"}
    | {"multipartcopythresholdsize", "webhook", "webhook_secret"}
)
WITHOUT_URLS: Final = ("local", "memory")  #: drivers whose blobs have none
_MAX_NAME: Final = 255  #: characters, what the column of an upload's row has


def check_together(given: Any) -> None:
    """Raise ValueError, ``name: problem``, for the first of these parameters that does not fit the others."""
    if given.driver == "s3" and not given.bucket:
        raise ValueError("bucket: is missing")
    if given.driver == "s3" and not given.region and not given.regionendpoint:
        raise ValueError("region: is missing (or give a regionendpoint)")
    if len(given.bucket) > _MAX_NAME:
        raise ValueError(f"bucket: has more than {_MAX_NAME} characters")
    if given.driver == "local" and len(given.rootdirectory) > _MAX_NAME:
        raise ValueError(f"rootdirectory: has more than {_MAX_NAME} characters")
    if given.driver == "local" and not given.rootdirectory.startswith("/"):
        raise ValueError("rootdirectory: must be the absolute path of a directory")
    if (given.accesskey is None) != (given.secretkey is None):
        raise ValueError("accesskey, secretkey: give both, or none for boto3's ambient credentials")
    if given.keyid and not given.encrypt:
        raise ValueError("keyid: needs encrypt = true")


def as_boolean(value: Any) -> bool:
    """A boolean, also spelled as text. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("must be true or false")


def as_storage_class(value: str | None) -> str | None:
    """In upper case, as all of them are; None for the store's default."""
    name = (value or "").upper()
    return None if name in ("", "NONE") else name


@dataclass(frozen=True, slots=True)
class UrlParameters:
    """What decides the URLs of a storage. The names are the worker's; secrets are not shown."""

    driver: str = "s3"
    bucket: str = ""
    region: str | None = None
    regionendpoint: str = ""
    publicendpoint: str = ""
    accesskey: str | None = field(default=None, repr=False)  #: None: the ambient credentials of this process
    secretkey: str | None = field(default=None, repr=False)
    sessiontoken: str | None = field(default=None, repr=False)
    profile: str | None = None
    secure: bool = True
    forcepathstyle: bool = False
    rootdirectory: str = ""
    keys: str = "registry"
    encrypt: bool = False
    keyid: str | None = None
    storageclass: str | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any], *, name: str, keys: str = "registry") -> Self:
        """Check a section ``[storages.NAME]``. Raises ConfigurationError naming the first wrong parameter.

        ``keys``: of a section that has none.
        """
        where = f"storages.{name}"
        if not isinstance(given, Mapping):
            raise ConfigurationError(where, f"needs a mapping of parameters, got {type(given).__name__}")
        for parameter in given:
            if parameter not in ELSE | _OWN:
                raise ConfigurationError(f"{where}.{parameter}", "is an unknown setting")
        own = {"keys": keys} | {parameter: value for parameter, value in given.items() if parameter in _OWN}
        try:
            parsed = cls(**{parameter: _parsed(parameter, value) for parameter, value in own.items()})
            check_together(parsed)
        except ValueError as error:
            parameter, _, problem = str(error).partition(": ")
            raise ConfigurationError(f"{where}.{parameter}", problem) from None
        return parsed


_OWN: Final = frozenset(each.name for each in fields(UrlParameters))
_BOOLEANS: Final = ("secure", "forcepathstyle", "encrypt")
_OPTIONAL: Final = ("region", "accesskey", "secretkey", "sessiontoken", "profile", "keyid", "storageclass")


def _parsed(parameter: str, value: Any) -> Any:
    try:
        if parameter in _BOOLEANS:
            return as_boolean(value)
        if value is None and parameter in _OPTIONAL:
            return None
        if not isinstance(value, str):
            raise ValueError(f"needs a text, got {type(value).__name__}")
        if parameter == "keys" and value not in ("registry", "any"):
            raise ValueError("needs 'registry' or 'any'")
    except ValueError as error:
        raise ValueError(f"{parameter}: {error}") from None
    return as_storage_class(value) if parameter == "storageclass" else value
