"""What the command refuses, and what is out of its reach: one error, and how it exits."""

import re

import pytest
from click.testing import CliRunner

from blobferry.cli import main
from dev.services import free_port
from tests.client.conftest import SOURCE, Command, Site

WRITE = ["write", SOURCE, "/x"]


@pytest.mark.parametrize(
    "words",
    [
        ["write", SOURCE, "x"],
        ["write", "ftp://example.org/x", "/x"],
        [*WRITE, "--storage", "A B"],
        [*WRITE, "--label", "a"],
        [*WRITE, "--label", "a=b", "--label", "a=c"],
        [*WRITE, "--metadata", "A=b"],
        [*WRITE, "--priority", "10"],
        [*WRITE, "--not-before", "tomorrow"],
        [*WRITE, "--deadline", "2030-01-01T00:00:00"],
        [*WRITE, "--timeout", "5"],
        ["write", "-", "/x", "--offset", "0"],
        ["read", "/x", "-", "--priority", "1"],
        ["write", SOURCE],
        ["status", "nobody"],
        ["watch", "nobody"],
        ["jump"],
        ["cancel"],
        ["retry", "x", "--timeout", "3"],
        ["pause", "x", "--wait"],
        ["jobs", "--state", "done"],
        ["uploads", "--job", "nobody"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_one_error_and_no_row(command: Command, sqlite_site: Site, words: list[str]) -> None:
    done = command(*words)
    assert (done.exit_code, done.stdout, sqlite_site.rows()) == (2, "", [])
    assert len(re.findall(r"(?m)^(?:Error: |blobferry: )", done.stderr)) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [WRITE, ["status", "1"], ["watch", "1"], ["jobs"], ["uploads"]]
    + [[name, "1", "2"] for name in ("cancel", "pause", "resume", "retry")],
    ids=lambda words: words[0],
)
def test_a_database_out_of_reach_is_said_once_and_exits_3(words: list[str]) -> None:
    url = f"postgresql://blobferry:s3cret@127.0.0.1:{free_port()}/blobferry"
    done = CliRunner().invoke(main, words, env={"BLOBFERRY_DATABASE_URL": url})
    assert (done.exit_code, done.stdout) == (3, "")
    assert re.fullmatch(r"blobferry: database: .*refused.*\n", done.stderr)
    assert "s3cret" not in done.stderr
