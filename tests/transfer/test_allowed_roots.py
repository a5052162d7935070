"""Which ``file:`` URLs may be read and written: nothing outside of the allowed roots, however it is spelled."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker.errors import BlobferryError, DestinationNotAllowedError, SourceNotAllowedError, SourceNotFoundError
from worker.transfer.download.destination import FileDestination
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.source import Source

HOST = socket.gethostname()


@dataclass
class Opener:
    """Opens sources, or destinations, below a root."""

    root: Path
    open: Callable[[str, list[Path]], Source | FileDestination]
    refused: type[BlobferryError]
    missing: type[BlobferryError]

    def refusal(self, url: str, kind: type[BlobferryError] | None = None) -> str:
        """The message with which a URL is refused for good; no descriptor is left open by it."""
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(kind or self.refused) as caught:
            self.open(url, [self.root])
        assert len(os.listdir("/proc/self/fd")) == before
        assert (HOST in str(caught.value), caught.value.transient) == (True, False)
        return str(caught.value)


@pytest.fixture(params=["source", "destination"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "7.mp4").write_bytes(b"here")
    if request.param == "source":
        return Opener(root, FileSource.open, SourceNotAllowedError, SourceNotFoundError)
    return Opener(root, FileDestination.open, DestinationNotAllowedError, DestinationNotAllowedError)


@pytest.mark.parametrize(
    "path", ["7.mp4", "root2/a", "none", "none/7.mp4"], ids=["a file", "a neighbour", "missing", "missing directory"]
)
def test_a_path_outside_of_the_roots_is_refused_with_the_roots_even_if_it_is_missing(
    path: str, opener: Opener, tmp_path: Path
) -> None:
    """Nobody learns what is there. A neighbour whose name begins like a root is outside."""
    (tmp_path / "root2").mkdir()
    for secret in ("7.mp4", "root2/a"):
        (tmp_path / secret).write_bytes(b"secret")
    message = opener.refusal((tmp_path / path).as_uri())
    assert re.search(f"outside.*{opener.root}", message)


@pytest.mark.parametrize("path", ["none/7.mp4", "7.mp4/below"])
def test_a_path_without_its_directory_is_refused_by_its_name(path: str, opener: Opener) -> None:
    url = (opener.root / path).as_uri()
    assert url in opener.refusal(url, opener.missing)


def test_without_roots_every_file_is_refused(opener: Opener) -> None:
    with pytest.raises(opener.refused, match=r"none are configured \(sources\.file_roots\)"):
        opener.open((opener.root / "7.mp4").as_uri(), [])


@pytest.mark.parametrize("dots", ["/../a", "/%2e%2e/a", "/..%2fa", "/%2E%2E%2Fa", "/in/../../a", "/in/%2e%2e/%2e%2e/a"])
def test_dots_do_not_lead_out_of_a_root(dots: str, opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"secret")
    assert "outside" in opener.refusal(opener.root.as_uri() + dots)


@pytest.mark.parametrize("dots", ["/in/../7.mp4", "/in/%2e%2e/7.mp4"])
def test_dots_that_stay_within_the_root_are_harmless(dots: str, opener: Opener) -> None:
    with closing(opener.open(opener.root.as_uri() + dots, [opener.root])) as opened:
        assert not isinstance(opened, FileDestination) or opened.key == str(opener.root / "7.mp4")


def test_a_directory_that_is_a_symlink_out_of_a_root_is_refused(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"secret")
    (opener.root / "link").symlink_to(tmp_path / "elsewhere")
    assert "symlinks resolved" in opener.refusal(f"{opener.root.as_uri()}/link/a")


def test_a_root_that_is_a_symlink_itself_works(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(opener.root)
    opener.open((opener.root / "7.mp4").as_uri(), [tmp_path / "alias"]).close()
    opener.open((tmp_path / "alias" / "7.mp4").as_uri(), [opener.root]).close()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_only_a_regular_file_is_opened_and_a_fifo_blocks_nobody(kind: str, opener: Opener) -> None:
    (opener.root / "a").mkdir() if kind == "directory" else os.mkfifo(opener.root / "a")
    assert "not a regular file" in opener.refusal((opener.root / "a").as_uri())


@pytest.mark.parametrize("path", ["a" * 256, "loop/7.mp4"], ids=["too long", "a loop"])
def test_a_path_that_no_retry_will_ever_open_is_a_permanent_error(path: str, opener: Opener) -> None:
    (opener.root / "loop").symlink_to(opener.root / "loop")
    opener.refusal((opener.root / path).as_uri(), BlobferryError)


def test_closing_gives_the_descriptor_back(opener: Opener) -> None:
    before = len(os.listdir("/proc/self/fd"))
    opener.open((opener.root / "7.mp4").as_uri(), [opener.root]).close()
    assert len(os.listdir("/proc/self/fd")) == before
