"""``write --from-file``: many jobs from a list, and errors that name its line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blobferry import Client
from tests.client.conftest import SOURCE, Command, Site


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of three jobs, with empty lines."""
    path = tmp_path / "list"
    path.write_text(f"{SOURCE}\t/a\n\n\nhttps://example.org/b\t/b\n{tmp_path}/odd name\t/c\n")
    return path


def paths(site: Site) -> list[str]:
    return [row["path"] for row in site.rows()]


def test_each_line_is_a_job_with_the_options_given(command: Command, sqlite_site: Site, listed: Path) -> None:
    done = command("write", "--from-file", str(listed), "--label", "a=b", "--priority", "3", "--no-overwrite")
    assert (done.exit_code, done.stdout.split()) == (0, [row["id"] for row in sqlite_site.rows()])
    assert "3 jobs submitted; to list those that wait: blobferry jobs --state queued" in done.stderr
    assert paths(sqlite_site) == ["/a", "/b", "/c"]
    sources = [SOURCE, "https://example.org/b", (listed.parent / "odd name").as_uri()]
    assert [row["source"] for row in sqlite_site.rows()] == sources
    kept = {(str(row["labels"]), row["priority"], row["request"]["overwrite"]) for row in sqlite_site.rows()}
    assert kept == {("{'a': 'b'}", 3, False)}


def test_files_that_are_not_here_are_counted(command: Command, listed: Path) -> None:
    done = command("write", "--from-file", str(listed))
    assert f"note: files that do not exist here: 1, the first is {listed.parent}/odd name" in done.stderr
    (listed.parent / "odd name").touch()
    assert "do not exist" not in command("write", "--from-file", str(listed)).stderr


def test_the_list_may_come_from_standard_input(command: Command, sqlite_site: Site) -> None:
    done = command("write", "--from-file", "-", stdin=f"{SOURCE}\t/a\n{SOURCE}\t/b".encode())
    assert (done.exit_code, paths(sqlite_site)) == (0, ["/a", "/b"])


def test_in_json_each_job_is_an_object_with_its_line(command: Command, sqlite_site: Site, listed: Path) -> None:
    done = command("write", "--from-file", str(listed), "--json")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    ids = [row["id"] for row in sqlite_site.rows()]
    assert said == [{"id": job_id, "line": line} for job_id, line in zip(ids, (1, 4, 5), strict=True)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{SOURCE} /x", f"line 6: needs FILE or URL, a tab and PATH, got '{SOURCE} /x'"),
        (f"{SOURCE}\t/x\t/y", "line 6: needs FILE or URL, a tab and PATH"),
        ("\t/x", "line 6: needs FILE or URL, a tab and PATH"),
        (f"{SOURCE}\tx", "line 6: invalid path 'x'"),
        ("ftp://example.org/x\t/x", "line 6: source: "),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_line_is_named_and_nothing_is_submitted(
    command: Command, sqlite_site: Site, listed: Path, line: str, says: str, as_json: bool
) -> None:
    listed.write_text(listed.read_text() + line + "\n")
    done = command("write", "--from-file", str(listed), *(["--json"] if as_json else []))
    assert (done.exit_code, sqlite_site.rows()) == (2, [])
    assert (json.loads(done.stdout)["message"] if as_json else done.stderr.removeprefix("blobferry: ")).startswith(says)


def test_with_a_key_a_list_can_be_submitted_again(command: Command, sqlite_site: Site, listed: Path) -> None:
    first, again = (command("write", "--from-file", str(listed), "--idempotency-key", "k") for _ in range(2))
    assert (first.exit_code, first.stdout) == (0, again.stdout)
    assert [row["idempotency_key"] for row in sqlite_site.rows()] == ["k:1", "k:4", "k:5"]


def test_a_changed_line_under_the_same_key_is_a_conflict_that_names_it(
    command: Command, sqlite_site: Site, client: Client, listed: Path
) -> None:
    client.write_stream("/other", SOURCE, idempotency_key="k:4")
    done = command("write", "--from-file", str(listed), "--idempotency-key", "k")
    assert (done.exit_code, paths(sqlite_site)) == (2, ["/other"])
    assert done.stderr.startswith("blobferry: line 4: idempotency key 'k:4' was used by job ")


@pytest.mark.parametrize("words", [[SOURCE], [SOURCE, "/x"], ["--wait"], ["--offset", "3"], ["--timeout", "3"]])
def test_what_belongs_to_one_job_is_refused(
    command: Command, sqlite_site: Site, listed: Path, words: list[str]
) -> None:
    done = command("write", "--from-file", str(listed), *words)
    assert (done.exit_code, sqlite_site.rows()) == (2, [])
    assert "--from-file takes no FILE, PATH, --offset, --wait and --timeout" in done.stderr


def test_files_go_into_a_directory_under_their_own_names(command: Command, sqlite_site: Site, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.bin", "b.bin")]
    done = command("write", *files, "https://example.org/x/c%20d.bin?sig=1", "/dir/", "--idempotency-key", "k")
    assert done.exit_code == 2
    assert "invalid path '/dir/c d.bin': holds ' '" in done.stderr
    assert paths(sqlite_site) == []
    done = command("write", *files, "/dir/", "--idempotency-key", "k")
    assert (done.exit_code, done.stdout.split()) == (0, [row["id"] for row in sqlite_site.rows()])
    assert [(row["path"], row["idempotency_key"]) for row in sqlite_site.rows()] == [
        ("/dir/a.bin", "k:a.bin"),
        ("/dir/b.bin", "k:b.bin"),
    ]
    done = command("write", files[0], "/other/", "--json")
    assert json.loads(done.stdout)["path"] == "/other/a.bin"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("a.bin", "b.bin", "/dir"), "several files need a PATH that ends with a slash, got '/dir'"),
        (("-", "/dir/"), "has no name of its own to be written under /dir/"),
        (("https://example.org/", "/dir/"), "has no name of its own"),
        (("a.bin", "/dir/", "--offset", "1"), "takes no --offset"),
        (("a.bin", "/dir/", "--timeout", "1"), "--timeout needs --wait"),
        (("a.bin",), "Missing argument 'PATH'"),
        ((), "Missing argument 'FILE|URL|-'"),
    ],
)
def test_what_cannot_go_into_a_directory_is_refused(
    command: Command, sqlite_site: Site, words: tuple[str, ...], says: str
) -> None:
    done = command("write", *words)
    assert (done.exit_code, sqlite_site.rows()) == (2, [])
    assert says in done.stderr


def test_ids_alone_are_printed_for_other_commands(command: Command, sqlite_site: Site) -> None:
    for path in ("/a", "/b"):
        command("write", SOURCE, path)
    ids = [row["id"] for row in sqlite_site.rows()]
    assert command("jobs", "--ids", "--since", "1h").stdout.split() == ids[::-1]
    assert command("jobs", "--ids", "--until", "1h").stdout == ""
    assert command("cancel", *ids).exit_code == 0


def test_a_duration_is_a_time_from_now(command: Command, sqlite_site: Site) -> None:
    before = datetime.now(UTC)
    assert command("write", SOURCE, "/a", "--deadline", "2h", "--not-before", "90s").exit_code == 0
    (row,) = sqlite_site.rows()
    assert timedelta(0) <= row["deadline"] - before - timedelta(hours=2) < timedelta(minutes=1)
    assert timedelta(0) <= row["not_before"] - before - timedelta(seconds=90) < timedelta(minutes=1)
    assert "needs a time such as" in command("write", SOURCE, "/a", "--deadline", "2 hours").stderr
