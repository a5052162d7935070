"""The command ``blobferry-worker``. It refuses to run where another distribution has put files into its packages."""

import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

PACKAGES: Final = ("worker", "tasks", "models")
REMEDY: Final = (
    "Its packages worker, tasks and models share their names with those of many apps, so it needs an environment of "
    "its own: pipx install blobferry-worker, uv tool install blobferry-worker, or a venv"
)


def main() -> None:
    """Run ``python -m worker`` of this environment."""
    try:
        for stranger in strangers(distribution("blobferry-worker")):
            raise ImportError(f"{stranger} is not part of blobferry-worker. {REMEDY}")
        # Only now: what it imports may be the files of others. It refuses others that come first on the path.
        from worker.__main__ import entry  # noqa: PLC0415
    except ImportError as error:
        sys.exit(f"blobferry-worker: {error}")
    entry()


def strangers(installed: Distribution) -> Iterator[Path]:
    """The modules in our packages that were not installed with us: another wheel has added or replaced them."""
    ours = {Path(str(file.locate())): file.hash for file in installed.files or ()}
    for package in PACKAGES:
        folder = Path(str(installed.locate_file(package)))
        yield from (path for path in sorted(folder.glob("*.py")) if path not in ours)
        init = folder / "__init__.py"
        written = ours.get(init)
        if written is not None and written.value != _record_hash(init):
            yield init


def _record_hash(path: Path) -> str:
    # Source: PyPA, "Recording installed projects": urlsafe base64 without its padding
    return urlsafe_b64encode(sha256(path.read_bytes()).digest()).decode().rstrip("=")


if __name__ == "__main__":
    main()
