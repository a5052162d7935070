"""Listening: what was not handed on completely before a crash is handed on again; what was is not."""

import threading
from itertools import islice

import pytest

from blobferry import Client
from blobferry.errors import InvalidRequestError
from blobferry.jobs.listening import AT_ONCE, listen
from tests.client.conftest import Site
from tests.client.test_finished import end_now, run


def heard(client: Client, number: int, name: str = "shop") -> list[str | None]:
    """The paths of so many ends; whoever listens dies with the last of them in hand."""
    return [job.path for job in islice(listen(client, name, interval=0.01), number)]


def test_it_goes_on_after_the_last_page_that_was_worked_through(ferry: Client, site: Site) -> None:
    end_now(site, *run(site, "/before"))
    first = listen(ferry, "shop", interval=0.01)
    end_now(site, *run(site, "/1", "/2"))
    assert [next(first).path for _ in range(2)] == ["/1", "/2"]
    assert heard(ferry, 2) == ["/1", "/2"], "nobody has asked for a third, so the second may not be done"
    again = listen(ferry, "shop", interval=0.01)
    assert [next(again).path for _ in range(2)] == ["/1", "/2"]
    end_later = threading.Timer(0.2, lambda: end_now(site, *run(site, "/3")))
    end_later.start()
    assert next(again).path == "/3"
    end_later.join()
    assert heard(ferry, 1) == ["/3"], "the page before is done"


def test_each_name_has_a_place_of_its_own(ferry: Client, site: Site) -> None:
    listening = [listen(ferry, name, interval=0.01) for name in ("shop", "blog")]
    end_now(site, *run(site, "/1"))
    assert [next(one).path for one in listening] == ["/1", "/1"]


@pytest.mark.no_cover
def test_pages_follow_each_other(client: Client, sqlite_site: Site) -> None:
    listening = listen(client, "shop", interval=0.01)
    paths = [f"/{number}" for number in range(AT_ONCE + 5)]
    end_now(sqlite_site, *run(sqlite_site, *paths))
    assert [next(listening).path for _ in paths] == paths
    assert heard(client, 5) == paths[-5:], "the first page is done"


def test_a_name_is_needed(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"^name: "):
        listen(client, "")
