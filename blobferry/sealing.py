"""Sealing: the URL of a source that holds a secret is kept encrypted, in rows and in messages.

A sealed URL is ``sealed:`` and a Fernet token, text that may stand wherever the URL could. The first key seals, every
key opens: a new one is put in front of the old, which stays until the jobs sealed with it have ended.
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
    """Seals and opens with the keys given. Without a key, URLs stay as they are and sealed ones cannot be opened.

    Thread-safe. Raises ConfigurationError for a key that is none; no error and no repr shows one.
    """

    def __init__(self, keys: str | Sequence[str] = ()) -> None:
        """``keys`` as a sequence, or as the text of BLOBFERRY_ENCRYPTION_KEYS; the first is the one that seals."""
        listed = parse_keys(keys)
        self._fernet: MultiFernet | None = _fernet(listed) if listed else None

    def kept(self, url: str) -> str:
        """The URL as a row or a message keeps it: sealed if it holds a secret and there is a key."""
        return self.sealed(url) if self._fernet and holds_secret(url) else url

    def sealed(self, url: str) -> str:
        """The URL sealed, whatever it holds. Not the same text twice."""
        if is_sealed(url):
            return url
        if self._fernet is None:
            raise ConfigurationError(SETTING, "there is no key to seal with")
        return sealed_text(self._fernet.encrypt(url.encode()).decode())

    def opened(self, url: str) -> str:
        """The URL itself, checked. One that is not sealed is returned as it is.

        Raises ConfigurationError if no key opens it, InvalidRequestError if no URL of a source is inside.
        """
        if not is_sealed(url):
            return url
        if self._fernet is None:
            raise ConfigurationError(SETTING, "a source is sealed, and no key is configured to open it")
        # Only this method needs its name: whoever has no key need not have the package either.
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            inside = self._fernet.decrypt(url.partition(":")[2]).decode()
        except (InvalidToken, UnicodeDecodeError):
            raise ConfigurationError(
                SETTING,
                "none of the keys opens a sealed source: it was sealed with another one, or damaged. When keys are "
                "rotated the old one stays in the list until the jobs sealed with it have ended",
            ) from None
        if is_sealed(inside):
            raise InvalidRequestError("source: sealed twice")
        return str(check_source("source", inside))

    def shown(self, url: str) -> str:
        """The URL as people may see it, which for a sealed one needs the key: without it they see that it is sealed."""
        try:
            return redacted(self.opened(url))
        except (ConfigurationError, InvalidRequestError):
            return redacted(url)

    def kept_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The checked arguments of an operation, as a row keeps them."""
        source = arguments.get("source")
        return {**arguments, "source": self.kept(source)} if isinstance(source, str) else dict(arguments)

    def kept_options(self, options: Any) -> Any:
        """What a message carries along: in a chain, a chord or a link there may be tasks of ours and their sources."""
        if isinstance(options, Mapping):
            found = {name: self.kept_options(value) for name, value in options.items()}
            if found.get("task") == _SOURCE_TASK and isinstance(found.get("kwargs"), dict):
                found["kwargs"] = self.kept_arguments(found["kwargs"])
            return found
        return [self.kept_options(item) for item in options] if isinstance(options, list | tuple) else options


def seal(url: str, keys: str | Sequence[str]) -> str:
    """Seal the URL of a source, for a task that an app sends by Celery itself.

    ``keys`` are Fernet keys, as a sequence or as the text of BLOBFERRY_ENCRYPTION_KEYS; the first seals. What is
    returned is the ``source`` of the task; a worker that has the key opens it. ``Client`` seals by itself.
    Raises InvalidRequestError for a URL that cannot be a source, ConfigurationError for a key that is none.
    """
    return Sealer(keys).sealed(check_source("source", url))


def parse_keys(keys: Any) -> Any:
    """Keys as a list, from the text of a variable: a JSON list, or keys with commas between. Others as they are."""
    if not isinstance(keys, str):
        return keys
    if keys.lstrip().startswith("["):
        try:
            found = json.loads(keys)
        except ValueError:
            raise ConfigurationError(SETTING, "needs a JSON list of keys, or keys with commas between") from None
        return found
    return [key for part in keys.split(",") if (key := part.strip())]


def _fernet(keys: Sequence[str]) -> "MultiFernet":
    try:  # an extra of the package: most apps need none
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(SETTING, "needs the package cryptography: install blobferry[encryption]") from None
    for number, key in enumerate(keys, start=1):
        if not isinstance(key, str) or not _KEY.fullmatch(key):  # the library overlooks what follows a key
            raise ConfigurationError(
                SETTING,
                f"key {number} of {len(keys)} is none: a key is 32 random bytes in URL-safe base64, "
                "as `openssl rand -base64 32 | tr +/ -_` makes them",
            )
    return MultiFernet([Fernet(key) for key in keys])
