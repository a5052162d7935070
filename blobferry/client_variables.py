"""A client from variables of the environment, named after its arguments. Reads none by itself."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from blobferry.errors import ConfigurationError
from blobferry.messages.broker_address import options_of
from blobferry.signing.configured_storages import can_sign, configured_storages

_NAMES: Final = ("database_url", "broker_url", "result_backend", "encryption_keys", "keys", "spool_dir")

Made = TypeVar("Made")


def from_variables(kind: Callable[..., Made], environ: Mapping[str, str]) -> Made:
    """A client of that class. Raises ConfigurationError that names the variable."""
    values: dict[str, Any] = {name: environ.get(f"BLOBFERRY_{name.upper()}", "") for name in _NAMES}
    if not values["database_url"]:
        raise ConfigurationError("BLOBFERRY_DATABASE_URL", "is not set; set it to the URL of the jobs' database")
    # Where nothing could sign them they are the worker's, in an environment that app and worker share.
    values["storages"] = configured_storages(environ) if can_sign() else None
    try:
        return kind(engine=None, broker_options=options_of(environ), **values)
    except ConfigurationError as error:
        raise ConfigurationError(f"BLOBFERRY_{error.name.upper().replace('.', '__')}", error.problem) from None
