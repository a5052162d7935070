"""Bodies for stores to read."""


class ReusedBuffer:
    """A body as the transfer engine hands it in: every read gives a view of one and the same buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._buffer = bytearray(64 * 1024)

    def read(self, size: int = -1, /) -> memoryview:
        left = len(self._data) - self._position
        count = min(len(self._buffer), left if size < 0 else size, left)
        self._buffer[:count] = self._data[self._position : self._position + count]
        self._position += count
        return memoryview(self._buffer)[:count]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, len(self._data))[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def __len__(self) -> int:
        return len(self._data)
