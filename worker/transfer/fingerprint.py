"""Fingerprints of sources: which differences prove other bytes, and which only ask for a comparison.

A fingerprint is a mapping of JSON values. A difference in ``instance`` (of a file: device, inode and time of the
inode's last change) proves nothing: restoring a snapshot, a remount or a chmod changes it, and so does a rewrite that
sets the old modification time again. Two servers may have two ETags, or two dates, for one file. The bytes decide.
"""

from collections.abc import Mapping
from typing import Any, Final

from blobferry.contract import REPLACED_SOURCE
from worker.errors import SourceChangedError

INSTANCE: Final = "instance"
INSTANCES: Final = "instances"  #: those that were compared before, so that workers on two hosts compare once each
MAX_INSTANCES: Final = 16
_VALIDATORS: Final = ("checksum", "etag", "last_modified")  #: the best first
_LOOSE: Final = frozenset({INSTANCE, INSTANCES, REPLACED_SOURCE, *_VALIDATORS})
#: What must agree whatever kind the new source is: size, and where its bytes go.
_PLACE: Final = ("size", "offset", "onto")
_EXACT: Final = "mod_time"  #: only versions of blobs have it: their parts may be copied unread, so they must be equal


def pinned(
    known: Mapping[str, Any] | None, now: Mapping[str, Any], *, source: str = "the source", is_compared: bool = False
) -> dict[str, Any] | None:
    """The fingerprint to save for a source that is opened again; None if its bytes have to be compared first.

    Raises SourceChangedError if they have surely changed.

    Args:
        known: the saved fingerprint; None for none.
        now: that of the opened source.
        source: the source's URL, for the message.
        is_compared: its bytes were compared, so a doubt is settled.
    """
    if known is None:
        return dict(now)
    if _may_differ(known, now, source):
        return _joined(known, now) if is_compared else None
    return dict(now) if known.get(REPLACED_SOURCE) else dict(known)


def _may_differ(known: Mapping[str, Any], now: Mapping[str, Any], source: str) -> bool:
    is_replaced = bool(known.get(REPLACED_SOURCE))
    names = _PLACE if is_replaced else (known.keys() | now.keys()) - _LOOSE
    is_blob = not is_replaced and _EXACT in known.keys() | now.keys()
    if (is_blob and known != now) or any(known.get(name) != now.get(name) for name in names):
        raise _changed(source, known, now)
    for name in _VALIDATORS:
        if name in known and name in now:
            if name == "checksum" and known[name] != now[name]:
                raise _changed(source, known, now)
            return bool(known[name] != now[name])
    return known != now and (INSTANCE not in now or now[INSTANCE] not in _instances(known))


def _joined(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The new fingerprint, with the instances that are known to hold the same bytes."""
    if INSTANCE not in now or known.get(REPLACED_SOURCE):
        return dict(now)
    return {**now, INSTANCES: [*_instances(known), now[INSTANCE]][-MAX_INSTANCES:]}


def _instances(known: Mapping[str, Any]) -> list[Any]:
    return list(known.get(INSTANCES) or [known[INSTANCE]] if INSTANCE in known else [])


def _changed(source: str, known: Mapping[str, Any], now: Mapping[str, Any]) -> SourceChangedError:
    shown = {name: value for name, value in known.items() if name not in (INSTANCES, REPLACED_SOURCE)}
    return SourceChangedError(f"{source}: was {shown} at the first attempt, is {dict(now)} now")
