"""The options of a signed URL, as ``url_for`` takes them and as a message carries them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, get_args
from urllib.parse import quote

from blobferry.checks.arguments import check_content_type, check_due, refused
from blobferry.checks.paths import MAX_KEY_BYTES
from blobferry.errors import InvalidRequestError, UnsupportedMethodError
from blobferry.redaction import short_repr

Method = Literal["GET", "HEAD", "PUT"]
"""What a signed URL may allow."""

METHODS: Final[tuple[str, ...]] = get_args(Method)
#: Headers of the answer that the URL may set. Source: S3 API reference, GetObject
RESPONSE_OPTIONS: Final = ("response-content-disposition", "response-content-type")
PUT_OPTIONS: Final = ("content-type",)  #: headers that the request must then send
OPTIONS: Final = ("method", "expiry", *RESPONSE_OPTIONS, *PUT_OPTIONS)
DOWNLOAD_AS: Final = "download-as"  #: a file's name; stands for the disposition that gives a download this name
_GIVEN: Final = (*OPTIONS, DOWNLOAD_AS)
_MAX_HEADER: Final = 4096  #: characters
_MAX_FILE_NAME: Final = 255  #: characters


def check_url_options(name: str, value: Any) -> dict[str, str]:
    """``method``; ``expiry``: an aware datetime, a timedelta or seconds from now; headers of the answer to a GET.

    And ``content-type`` of a PUT. ``download-as``, the name of a file, becomes a content disposition.
    """
    if not isinstance(value, Mapping):
        raise refused(name, f"a mapping with some of {', '.join(map(repr, _GIVEN))}", value)
    for option in value:
        if option not in _GIVEN:
            known = ", ".join(map(repr, _GIVEN))
            raise InvalidRequestError(f"{name}: unknown option {short_repr(option)}; known options: {known}")
    options = {}
    if (method := value.get("method")) is not None:
        if method not in METHODS:
            raise UnsupportedMethodError(_shortened(method))
        options["method"] = str(method)
    if (expiry := value.get("expiry")) is not None:
        options["expiry"] = check_due(f"{name}: expiry", _as_duration(expiry))
    method = options.get("method", "GET")
    for option in RESPONSE_OPTIONS:
        if (header := value.get(option)) is not None:
            options[option] = _check_header(f"{name}: {option}", header, method)
    if (file_name := value.get(DOWNLOAD_AS)) is not None:
        if RESPONSE_OPTIONS[0] in options:
            raise InvalidRequestError(f"{name}: give {DOWNLOAD_AS} or {RESPONSE_OPTIONS[0]}, not both")
        disposition = attachment(f"{name}: {DOWNLOAD_AS}", file_name)
        options[RESPONSE_OPTIONS[0]] = _check_header(f"{name}: {DOWNLOAD_AS}", disposition, method)
    for option in PUT_OPTIONS:
        if (header := value.get(option)) is not None:
            if method != "PUT":
                problem = f"only a PUT can have it, and the method is {method}; for a GET use {RESPONSE_OPTIONS[1]}"
                raise InvalidRequestError(f"{name}: {option}: {problem}")
            options[option] = check_content_type(f"{name}: {option}", header)
    return options


def attachment(name: str, file_name: Any) -> str:
    """The Content-Disposition that saves an answer under the name of a file. Source: RFC 6266, appendix D."""
    if not isinstance(file_name, str) or not file_name.isprintable() or not 0 < len(file_name) <= _MAX_FILE_NAME:
        raise refused(name, f"the name of a file, 1 to {_MAX_FILE_NAME} printable characters", file_name)
    if any("\ud800" <= char <= "\udfff" for char in file_name):
        raise refused(name, "a name that UTF-8 can express", file_name)
    plain = file_name.encode("ascii", "replace").decode().replace("?", "_").replace("\\", "_").replace('"', "_")
    disposition = f'attachment; filename="{plain}"'
    # Browsers decode percent signs in the plain form, some of them.
    if plain == file_name and "%" not in file_name:
        return disposition
    return f"{disposition}; filename*=UTF-8''{quote(file_name, safe='')}"


def _as_duration(expiry: Any) -> Any:
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    try:
        return timedelta(seconds=expiry) if is_number else expiry
    except (OverflowError, ValueError):
        return expiry


def _check_header(name: str, value: Any, method: str) -> str:
    if method != "GET":
        raise InvalidRequestError(f"{name}: only the answer to a GET can have it, and the method is {method}")
    if not isinstance(value, str) or not value.isprintable() or not value.isascii() or not 0 < len(value) < _MAX_HEADER:
        raise refused(
            name, f"printable ASCII, at most {_MAX_HEADER} characters (names beyond ASCII as filename*=)", value
        )
    return value


def _shortened(value: Any) -> str:
    """The text itself, for an error with a field for it; a short repr of anything else and of very long text."""
    return value if isinstance(value, str) and len(value) <= 2 * MAX_KEY_BYTES else short_repr(value)
