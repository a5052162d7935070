"""A mounted file system of one file that answers until it is told to hang, as a network mount may do."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest

# Source of numbers and layouts: linux/fuse.h, protocol 7.31.
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 15, 18, 25, 26
_HANGING: Final = (_LOOKUP, _GETATTR, _OPEN, _READ)
_HEADER: Final = struct.Struct("<IIQQIIII")
_ATTRIBUTES: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_ENOENT, _ENOSYS = 2, 38
_DIRECTORY, _FILE = 1, 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass
class Mount:
    """The file, and whether it hangs."""

    file: Path
    data: bytes
    hangs: Event = field(default_factory=Event)
    has_hung: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)


@contextmanager
def mounted(directory: Path, data: bytes) -> Iterator[Mount]:
    """Mount it at the directory; skips the test where that is not allowed."""
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse to mount a file system that hangs")
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if _LIBC.mount(b"test", os.fsencode(directory), b"fuse", 0, options):
        os.close(device)
        pytest.skip(f"cannot mount here: {os.strerror(ctypes.get_errno())}")
    mount = Mount(directory / "file", data)
    thread = Thread(target=_serve, args=(device, mount), daemon=True)
    thread.start()
    try:
        yield mount
    finally:
        mount.released.set()
        _LIBC.umount2(os.fsencode(directory), 1 | 2)  # MNT_FORCE | MNT_DETACH: whatever hangs gets an error
        thread.join(30)
        os.close(device)


def _serve(device: int, mount: Mount) -> None:
    while True:
        try:
            request = os.read(device, 1 << 18)
        except OSError:  # it is unmounted
            return
        _, code, number, node, *_ = _HEADER.unpack_from(request)
        if code == _FORGET:
            continue
        error, body = _answer(code, node, request[_HEADER.size :], mount)
        try:
            os.write(device, struct.pack("<IiQ", 16 + len(body), -error, number) + body)
        except OSError:  # whoever asked has been interrupted
            continue


def _answer(code: int, node: int, request: bytes, mount: Mount) -> tuple[int, bytes]:
    if mount.hangs.is_set() and code in _HANGING:
        mount.has_hung.set()
        mount.released.wait()
    if code == _INIT:
        return 0, struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, 1 << 17, 1, 0, 0, 0)
    if code == _LOOKUP and request.rstrip(b"\0") == b"file":
        return 0, struct.pack("<QQQQII", _FILE, 0, 0, 0, 0, 0) + _attributes(_FILE, mount)
    if code == _GETATTR:
        return 0, struct.pack("<QII", 0, 0, 0) + _attributes(node, mount)
    if code == _OPEN:
        return 0, struct.pack("<QII", 0, 1, 0)  # FOPEN_DIRECT_IO: each read is asked for
    if code == _READ:
        offset, size = struct.unpack_from("<8xQI", request)
        return 0, mount.data[offset : offset + size]
    if code in (_RELEASE, _FLUSH):
        return 0, b""
    return (_ENOENT if code == _LOOKUP else _ENOSYS), b""


def _attributes(node: int, mount: Mount) -> bytes:
    size, mode = (len(mount.data), 0o100644) if node == _FILE else (0, 0o40755)
    return _ATTRIBUTES.pack(node, size, 0, 1, 1, 1, 0, 1, 1, mode, 1, 0, 0, 0, 4096, 0)
