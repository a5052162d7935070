"""A trap on a :mod:`dev.proxies.tcp`: at which bytes of what clients send a connection is to be cut."""

from dataclasses import dataclass


@dataclass(slots=True)
class Trap:
    """Goes off at the ``left``-th ``token``, counted over all connections; then it is spent."""

    token: bytes
    before: bool  #: cut before the server sees the token; else once it has answered
    left: int
    following: bytes = b""  #: only tokens count before which this went by on the same connection


class Watch:
    """What one connection's client has sent since the trap was set, as far as it matters."""

    def __init__(self) -> None:
        self._trap: Trap | None = None
        self._seen = b""  # its end, where a token may have begun
        self._is_primed = False

    def springs(self, trap: Trap, piece: bytes) -> bool:
        """Whether the trap goes off in this piece."""
        if trap is not self._trap:
            self._trap, self._seen, self._is_primed = trap, b"", not trap.following
        text, position = self._seen + piece, 0
        while trap.left:
            wanted = trap.token if self._is_primed else trap.following
            if (found := text.find(wanted, position)) < 0:
                break
            position = found + len(wanted)
            trap.left -= self._is_primed
            self._is_primed = not self._is_primed or not trap.following
        self._seen = text[max(position, len(text) - max(len(trap.token), len(trap.following)) + 1) :]
        return not trap.left
