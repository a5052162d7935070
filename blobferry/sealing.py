"""Sealing: source URLs that hold a secret are encrypted in rows and messages.

A sealed URL is ``sealed:`` and a Fernet token, accepted wherever the URL is. The first key seals, every key opens. To
rotate keys, put the new one first and keep the old one until the jobs sealed with it have ended.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from blobferry.checks.source_urls import check_source
from blobferry.errors import ConfigurationError, InvalidRequestError
from blobferry.redaction import holds_secret, is_sealed, redacted, sealed_text

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SETTING: Final = "encryption_keys"
_KEY: Final = re.compile("[A-Za-z0-9_-]{43}=")  # source: the Fernet specification
_SOURCE_TASK: Final = "blobferry.write_stream"  #: the task that takes a source


class Sealer:
    """Seals and opens with the given keys. Without keys it leaves URLs as they are and cannot open sealed ones.

    Thread-safe. Raises ConfigurationError for an invalid key; no error and no repr shows a key.
    """

    def __init__(self, keys: str | Sequence[str] = ()) -> None:
        """``keys`` is a sequence, or the text of BLOBFERRY_ENCRYPTION_KEYS."""
        listed = parse_keys(keys)
        self._fernet: MultiFernet | None = _fernet(listed) if listed else None

    def kept(self, url: str) -> str:
        """The URL for a row or a message: sealed if it holds a secret and there is a key."""
        return self.sealed(url) if self._fernet and holds_secret(url) else url

    def sealed(self, url: str) -> str:
        """The URL sealed, with or without a secret. The text differs each time.

        A ``blob:`` URL stays as it is: it cannot hold a secret, and jobs that need its path must find it.
        """
        if is_sealed(url) or url.startswith("blob:"):
            return url
        if self._fernet is None:
            raise ConfigurationError(SETTING, "has no key to seal with")
        return sealed_text(self._fernet.encrypt(url.encode()).decode())

    def opened(self, url: str) -> str:
        """The URL inside, checked. One that is not sealed is returned as it is.

        Raises ConfigurationError if no key opens it, InvalidRequestError if the inside is not the URL of a source.
        """
        if not is_sealed(url):
            return url
        if self._fernet is None:
            raise ConfigurationError(
                SETTING, "has no key to open a sealed source; configure the one it was sealed with"
            )
        # Here, because the package is installed only where there are keys.
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            inside = self._fernet.decrypt(url.partition(":")[2]).decode()
        except (InvalidToken, UnicodeDecodeError):
            raise ConfigurationError(
                SETTING,
                "no key opens a sealed source: it was sealed with another key, or is damaged. After a rotation, keep "
                "the old key in the list until the jobs sealed with it have ended",
            ) from None
        if is_sealed(inside):
            raise InvalidRequestError("source: is sealed twice; seal the URL itself")
        return str(check_source("source", inside))

    def shown(self, url: str) -> str:
        """The URL for display, without secrets. Without the key of a sealed one, only that it is sealed."""
        try:
            return redacted(self.opened(url))
        except (ConfigurationError, InvalidRequestError):
            return redacted(url)

    def kept_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The checked arguments of an operation as a row stores them."""
        source = arguments.get("source")
        return {**arguments, "source": self.kept(source)} if isinstance(source, str) else dict(arguments)

    def kept_options(self, options: Any) -> Any:
        """A message's options as a row stores them. Their chains, chords and links may hold tasks with sources."""
        if isinstance(options, Mapping):
            found = {name: self.kept_options(value) for name, value in options.items()}
            if found.get("task") == _SOURCE_TASK and isinstance(found.get("kwargs"), dict):
                found["kwargs"] = self.kept_arguments(found["kwargs"])
            return found
        return [self.kept_options(item) for item in options] if isinstance(options, list | tuple) else options


def seal(url: str, keys: str | Sequence[str]) -> str:
    """Seal the URL of a source, for a task that an app sends by Celery itself.

    ``keys`` are Fernet keys, as a sequence or as the text of BLOBFERRY_ENCRYPTION_KEYS; the first one seals. Pass the
    result as the ``source`` of the task; a worker with the key opens it. ``Client`` seals by itself.
    Raises InvalidRequestError for a URL that cannot be a source, ConfigurationError for an invalid key.
    """
    return Sealer(keys).sealed(check_source("source", url))


def parse_keys(keys: Any) -> Any:
    """The keys in the text of a variable: a JSON list, or separated by commas. Other values are returned unchanged."""
    if not isinstance(keys, str):
        return keys
    if keys.lstrip().startswith("["):
        try:
            return json.loads(keys)
        except ValueError:
            raise ConfigurationError(SETTING, "needs a JSON list of keys, or keys separated by commas") from None
    return [key for part in keys.split(",") if (key := part.strip())]


def _fernet(keys: Sequence[str]) -> "MultiFernet":
    try:  # an extra, which most apps do not need
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(SETTING, "needs the package cryptography; install blobferry[encryption]") from None
    for number, key in enumerate(keys, start=1):
        if not isinstance(key, str) or not _KEY.fullmatch(key):  # Fernet ignores text after a key
            raise ConfigurationError(
                SETTING,
                f"key {number} of {len(keys)} is not a Fernet key, 32 random bytes in URL-safe base64; make one with "
                "`openssl rand -base64 32 | tr +/ -_`",
            )
    return MultiFernet([Fernet(key) for key in keys])
