"""The apps of ``examples/``, as real servers beside a real stack, in a real browser."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, expect

from dev.example import EXAMPLES, running_example, with_spool
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.chromium import chromium, window
from tests.system.conftest import PART_SIZE
from tests.system.recorded_stack import Scene, recorded
from worker.maintenance.spool_marker import MARKER

PARTS = 4
WIDTHS = (1280, 360)  #: of the window, in pixels
PATIENCE = 60_000  #: milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@dataclass(frozen=True)
class App:
    """An example that runs, its stack, and a film to upload."""

    url: str
    scene: Scene
    film: Path

    def upload(self, page: Page) -> None:
        """Choose the film, and submit."""
        page.goto(self.url)
        expect(page.get_by_text("Nothing is here yet.")).to_be_visible()
        page.get_by_label("Film").set_input_files(self.film)
        page.get_by_role("button", name="Upload").click()

    def arrives(self, page: Page) -> None:
        """The bar reaches its end without a reload, and the link leads to the film, in the store."""
        expect(page.locator("output")).to_have_text("succeeded, 20.0 of 20.0 MiB (100%)", timeout=PATIENCE)
        assert page.locator("progress").evaluate("bar => bar.value") == 100
        wait_until(self._is_noted, 30, "the app knows that the film is stored")
        page.reload()
        link = page.get_by_role("link", name=self.film.name)
        answer = page.request.get(urljoin(self.url, link.get_attribute("href") or ""))
        assert answer.url.startswith(self.scene.stack.endpoint), "from the store"
        assert answer.body() == self.film.read_bytes()
        (job,) = self.scene.client.jobs()
        left = os.listdir(self.scene.stack.environment()["BLOBFERRY_SPOOL_DIR"])
        assert set(left) <= {MARKER}, "the spooled film is gone"
        assert self.scene.unfinished_uploads(job) == []

    def _is_noted(self) -> bool:
        table = (
            "films_film" if self.scene.rows.select("select to_regclass('films_film') found")[0]["found"] else "films"
        )
        return [row["size"] for row in self.scene.rows.select(f"select size from {table}")] == [PARTS * PART_SIZE]


@contextmanager
def running_app(name: str, stack: Stack, directory: Path) -> Iterator[App]:
    with ExitStack() as parts:
        scene = parts.enter_context(recorded(with_spool(stack), delays={"upload_part": 1.0}))
        film = directory / "my holiday.mp4"
        film.write_bytes(os.urandom(PARTS * PART_SIZE))
        yield App(parts.enter_context(running_example(name, scene.stack)), scene, film)


def bar(page: Page) -> float:
    return float(page.locator("progress").evaluate("bar => bar.value"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_film_is_uploaded_and_its_bar_reaches_the_end_though_the_worker_is_killed(
    name: str, stack: Stack, tmp_path: Path, browser: Browser
) -> None:
    with running_app(name, stack, tmp_path) as app, window(browser) as page:
        with app.scene.stack.worker("first") as first:
            app.upload(page)
            wait_until(lambda: 0 < bar(page) < 100, 30, "the bar moves")
            assert page.locator("output").inner_text().startswith("uploading, ")
            first.kill9()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 740})
            page.screenshot(path=tmp_path / f"{width}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"
        with app.scene.stack.worker("second"):
            app.arrives(page)
        (job,) = app.scene.client.jobs()
        assert job.attempt == 2
