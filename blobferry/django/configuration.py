"""The setting BLOBFERRY of a Django project: its keys, and what is wrong with them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from django.conf import settings

from blobferry.errors import ConfigurationError
from blobferry.messages.broker_address import BrokerOptions

SETTING: Final = "BLOBFERRY"
_TEXTS: Final = ("DATABASE", "BROKER_URL", "RESULT_BACKEND", "PATHS")


@dataclass(frozen=True, slots=True)
class FerrySettings:
    """The keys of BLOBFERRY, in lower case. Each may be left out."""

    database: str = "default"  #: the alias in DATABASES of the database that holds the jobs
    broker_url: str = field(default="", repr=False)  #: of the workers; without it the caretaker publishes
    result_backend: str = field(default="", repr=False)  #: of the answers to reads; the broker unless given
    broker_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  #: fields of BrokerOptions
    encryption_keys: Sequence[str] | str = field(default=(), repr=False)  #: the worker's; for sources with secrets
    spool_dir: str | os.PathLike[str] = ""  #: for ``spool``; the workers see it under the same path
    storages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)  #: the workers'; to sign URLs
    paths: str = "registry"  #: "any" where a storage has ``keys = "any"``
    publish_in_tests: bool = False  #: True: what a test commits is published, and reads are sent

    @classmethod
    def of_project(cls) -> Self:
        """What the project has set. Raises ConfigurationError naming the first key that is wrong."""
        given = getattr(settings, SETTING, {})
        for problem in problems(given):
            raise problem
        return cls(**{name.lower(): value for name, value in given.items() if value is not None})


def problems(given: Any) -> Iterator[ConfigurationError]:
    """Everything that is wrong with the value of the setting, as far as it alone tells."""
    if not isinstance(given, Mapping):
        yield ConfigurationError(SETTING, f"needs a dict, got {type(given).__name__}")
        return
    known = sorted(each.name.upper() for each in fields(FerrySettings))
    for name, value in given.items():
        where = f"{SETTING}[{name!r}]"
        if name not in known:
            yield ConfigurationError(where, f"is unknown; known keys: {', '.join(known)}")
        elif value is not None and name in _TEXTS and not isinstance(value, str):
            yield ConfigurationError(where, f"needs a text, got {type(value).__name__}")
        elif value is not None and name == "SPOOL_DIR" and not isinstance(value, str | os.PathLike):
            yield ConfigurationError(where, f"needs the path of a directory, got {type(value).__name__}")
        elif value is not None and name == "STORAGES" and not isinstance(value, Mapping):
            yield ConfigurationError(where, f"needs a dict of storages by name, got {type(value).__name__}")
        elif name == "PUBLISH_IN_TESTS" and not isinstance(value, bool):
            yield ConfigurationError(where, f"needs True or False, got {type(value).__name__}")
        elif name == "BROKER_OPTIONS":
            yield from _option_problems(where, value)


def _option_problems(where: str, value: Any) -> Iterator[ConfigurationError]:
    known = sorted(each.name for each in fields(BrokerOptions))
    if not isinstance(value, Mapping):
        yield ConfigurationError(where, f"needs a dict with some of {', '.join(known)}")
    elif unknown := sorted(set(value) - set(known)):
        yield ConfigurationError(where, f"unknown option {unknown[0]!r}; known options: {', '.join(known)}")
