"""Bytes and seconds as people read them."""

from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def in_bytes(size: float) -> str:
    """A number of bytes, such as 1.5 GiB."""
    unit = _unit(size)
    return f"{size / 1024**unit:.{min(unit, 1)}f} {_UNITS[unit]}"


def done_of(done: int, size: int, separator: str = "/") -> str:
    """Two numbers of bytes in the unit of the second, such as 0.3/1.5 GiB."""
    unit = _unit(size)
    return f"{done / 1024**unit:.{min(unit, 1)}f}{separator}{in_bytes(size)}"


def _unit(size: float) -> int:
    return next((unit for unit in range(len(_UNITS)) if size < 1024 ** (unit + 1)), len(_UNITS) - 1)


def duration(seconds: float) -> str:
    """A duration in the largest unit of which it has at least two."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
