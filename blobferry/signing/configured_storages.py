"""The sections ``[storages.NAME]`` of the worker's configuration, for a client: from its file and its variables."""

import json
import re
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from blobferry.errors import ConfigurationError
from blobferry.service_links import is_service_link

_FILE: Final = "BLOBFERRY_CONFIG"
_ALL: Final = "BLOBFERRY_STORAGES"  #: as JSON
_ONE: Final = re.compile(rf"{_ALL}__(\w+?)__(\w+)", re.IGNORECASE)

Sections = dict[str, dict[str, Any]]


def can_sign() -> bool:
    """Whether this process has what signs URLs."""
    return find_spec("botocore") is not None


def configured_storages(environ: Mapping[str, str]) -> Sections:
    """The parameters of each storage, variables over those of the file. Raises ConfigurationError."""
    path = environ.get(_FILE)
    given = _read(Path(path)) if path else {}
    found = _sections(_FILE, given.get("storages", {}))
    if environ.get(_ALL):
        _update(found, _sections(_ALL, _decoded(environ[_ALL])))
    for name, value in environ.items():
        if (named := _ONE.fullmatch(name)) and not is_service_link(name, value):
            _update(found, {named[1].lower(): {named[2].lower(): value}})
    keys = environ.get("BLOBFERRY_KEYS") or given.get("keys")
    return {name: {"keys": keys, **section} if keys else section for name, section in found.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(_FILE, f"file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(_FILE, f"file {path} cannot be read: {error}") from error


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigurationError(_ALL, "needs JSON, an object of storages by name") from None  # it may hold secrets


def _sections(where: str, given: Any) -> Sections:
    if not isinstance(given, Mapping) or not all(isinstance(section, Mapping) for section in given.values()):
        raise ConfigurationError(where, "storages: needs a section of parameters for each name")
    return {str(name): dict(section) for name, section in given.items()}


def _update(found: Sections, others: Sections) -> None:
    for name, section in others.items():
        found[name] = found.get(name, {}) | section
