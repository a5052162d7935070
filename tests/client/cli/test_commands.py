"""The command, as a shell runs it: what it prints where, and how it exits."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blobferry import Client
from dev.services import Valkey, free_port, moto
from dev.stack import Stack
from tests.client.conftest import MIB, SOURCE, Site

pytestmark = pytest.mark.no_cover

CHECKOUT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-W", "error", "-m", "blobferry"]


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")}
    return kept | {"PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", "TZ": "Asia/Tokyo"} | dict(variables)


def some(cases: Mapping[str, tuple[Any, ...]]) -> list[Any]:
    """Each case starts a process: a third of them does so in every run."""
    marks = [[], [pytest.mark.long], [pytest.mark.long]]
    return [
        pytest.param(*values, id=name, marks=marks[number % 3]) for number, (name, values) in enumerate(cases.items())
    ]


def run(variables: Mapping[str, str], *words: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        env=environment_with(variables),
        cwd=directory or CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_on_a_terminal(
    variables: Mapping[str, str], *words: str, meanwhile: Callable[[str, int], None] = lambda screen, pid: None
) -> tuple[int, str]:
    """Exit status and all that appeared on a terminal of 100 columns, without colours and cursor movements."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *words],
        env=environment_with(variables),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    seen = b""
    ends_at = time.monotonic() + 90
    with process, open(terminal, "rb", buffering=0) as screen:
        while time.monotonic() < ends_at:
            ready, _, _ = select.select([screen], [], [], 0.1)
            try:
                chunk = screen.read(65536) if ready else None
            except OSError:  # Linux says so at the end
                break
            if chunk == b"":
                break
            seen += chunk or b""
            meanwhile(seen.decode(errors="replace"), process.pid)
        else:
            process.kill()
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))


@pytest.fixture
def variables(sqlite_site: Site) -> dict[str, str]:
    found = sqlite_site.environment()
    assert isinstance(found, dict)
    return found


# --- write ---------------------------------------------------------------------------------------------------------


def test_write_prints_the_id_and_how_to_watch(variables: dict[str, str], client: Client, tmp_path: Path) -> None:
    (tmp_path / "a b#.bin").write_bytes(b"blob")
    done = run(variables, "write", "a b#.bin", "/x/y.bin", directory=tmp_path)
    job = client.get(done.stdout.removesuffix("\n"))
    assert (done.returncode, job.source, job.path) == (0, f"file://{tmp_path}/a%20b%23.bin", "/x/y.bin")
    assert done.stderr == f"queued; to watch it: blobferry watch {job.id}\n"


def test_write_hands_every_option_on(variables: dict[str, str], client: Client, sqlite_site: Site) -> None:
    options = "--storage archive --no-overwrite --content-type video/mp4 --metadata a=b=c --metadata d= --label e=f"
    options += " --priority 7 --not-before 2031-01-01T00:00:00Z --deadline 2032-01-01T01:00:00+01:00"
    done = run(variables, "write", SOURCE, "/x", *options.split(), "--idempotency-key", "k", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (said["storage"], said["labels"], said["idempotency_key"]) == ("archive", {"e": "f"}, "k")
    assert said["run_at"] == "2031-01-01T00:00:00+00:00"
    (row,) = sqlite_site.rows()
    assert (row["id"], row["priority"], row["deadline"]) == (said["id"], 7, datetime(2032, 1, 1, tzinfo=UTC))
    assert row["request"] == {
        "path": "/x",
        "source": SOURCE,
        "offset": 0,
        "overwrite": False,
        "content_type": "video/mp4",
        "metadata": {"a": "b=c", "d": ""},
    }


def test_a_file_that_is_not_here_is_submitted_with_a_remark(variables: dict[str, str], sqlite_site: Site) -> None:
    done = run(variables, "write", "/nowhere/a.bin", "/x")
    assert done.returncode == 0
    assert "/nowhere/a.bin does not exist here" in done.stderr
    assert len(sqlite_site.rows()) == 1


def test_a_broker_out_of_reach_is_a_remark(variables: dict[str, str], sqlite_site: Site) -> None:
    broker = {"BLOBFERRY_BROKER_URL": f"redis://:s3cret@127.0.0.1:{free_port()}/0"}
    done = run(variables | broker, "write", SOURCE, "/x", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "queued")
    assert done.stderr.startswith("note: message not published")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr
    assert len(sqlite_site.rows()) == 1


# --- errors --------------------------------------------------------------------------------------------------------

USAGE = {
    "bad path": ["write", SOURCE, "x"],
    "bad source": ["write", "ftp://example.org/x", "/x"],
    "bad storage": ["write", SOURCE, "/x", "--storage", "A B"],
    "bad label": ["write", SOURCE, "/x", "--label", "a"],
    "label twice": ["write", SOURCE, "/x", "--label", "a=b", "--label", "a=c"],
    "bad metadata": ["write", SOURCE, "/x", "--metadata", "A=b"],
    "bad priority": ["write", SOURCE, "/x", "--priority", "10"],
    "bad time": ["write", SOURCE, "/x", "--not-before", "tomorrow"],
    "time without zone": ["write", SOURCE, "/x", "--deadline", "2030-01-01T00:00:00"],
    "timeout without wait": ["write", SOURCE, "/x", "--timeout", "5"],
    "offset of standard input": ["write", "-", "/x", "--offset", "0"],
    "job option without a job": ["read", "/x", "-", "--priority", "1"],
    "no path": ["write", SOURCE],
    "no such job": ["status", "nobody"],
    "no such job to watch": ["watch", "nobody"],
    "no such command": ["jump"],
}


@pytest.mark.parametrize("words", some({name: (words,) for name, words in USAGE.items()}))
def test_wrong_usage_exits_2_with_one_error_and_no_row(
    variables: dict[str, str], sqlite_site: Site, words: list[str]
) -> None:
    done = run(variables, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "rror: " in done.stderr or done.stderr.startswith("blobferry: ")
    assert len(sqlite_site.rows()) == 0


def test_another_request_under_the_same_key_exits_2(variables: dict[str, str]) -> None:
    run(variables, "write", SOURCE, "/x", "--idempotency-key", "k")
    done = run(variables, "write", SOURCE, "/y", "--idempotency-key", "k", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (2, "conflict")


def test_an_error_in_json_is_the_only_thing_on_stdout(variables: dict[str, str]) -> None:
    done = run(variables, "status", "nobody", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {"error": "job_not_found", "message": "no job 'nobody'", "job_id": "nobody"}


def test_a_missing_variable_exits_2_and_is_named() -> None:
    done = run({}, "status", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BLOBFERRY_DATABASE_URL" in done.stderr


@pytest.mark.parametrize(
    "words", [["write", SOURCE, "/x"], ["status", "1"], ["watch", "1"]], ids=lambda words: words[0]
)
def test_a_database_out_of_reach_exits_3(words: list[str]) -> None:
    url = f"postgresql://blobferry:s3cret@127.0.0.1:{free_port()}/blobferry"
    done = run({"BLOBFERRY_DATABASE_URL": url}, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"blobferry: database: .*refused.*\n", done.stderr)
    assert "s3cret" not in done.stderr


# --- status and watch ----------------------------------------------------------------------------------------------

SITUATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "queued": ({}, r"queued: waits for a free worker slot, not yet published by a caretaker\nnext +then it runs\n"),
    "not yet": (
        {"run_at": datetime(2031, 1, 1, tzinfo=UTC)},
        r"queued: not before 2031-01-01 09:00 \(in \d+ d\)\nnext +then it waits for a free worker slot\n",
    ),
    "failed": (
        {"state": "failed", "error_code": "source_not_found", "error_message": "no \x1b[31mfile"},
        r"failed: source_not_found: no \\x1b\[31mfile",
    ),
}


@pytest.mark.parametrize(("values", "words"), some(SITUATIONS))
def test_status_says_in_words_where_a_job_is(
    variables: dict[str, str], client: Client, sqlite_site: Site, values: dict[str, Any], words: str
) -> None:
    job = client.write_stream("/x", SOURCE, labels={"user": "5"})
    if values:
        sqlite_site.change(job, **values)
    done = run(variables, "status", job.id)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(words, done.stdout)
    assert f"{job.created_at.astimezone(UTC) + timedelta(hours=9):%Y-%m-%d %H:%M:%S} JST" in done.stdout
    for expected in (job.id, SOURCE, "/x on storage default", "user=5"):
        assert expected in done.stdout


def test_status_in_json_is_the_job_and_why(variables: dict[str, str], client: Client) -> None:
    job = client.write_stream("/x", SOURCE)
    done = run(variables, "status", job.id, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, {**said, "seen_at": None}) == (0, {**said, **job.as_json(), "seen_at": None})
    assert (said["attempts"], said["uploads"], said["lease_expires_at"]) == ([], [], None)
    assert said["explanation"] == "waits for a free worker slot, not yet published by a caretaker; then it runs"


def test_watch_in_json_prints_a_line_for_each_change(
    variables: dict[str, str], client: Client, sqlite_site: Site
) -> None:
    job = client.write_stream("/x", SOURCE)
    with subprocess.Popen(
        [*COMMAND, "watch", job.id, "--json"], env=environment_with(variables), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "queued"
        sqlite_site.change(job, state="running", attempt=1)
        assert json.loads(process.stdout.readline())["state"] == "running"
        sqlite_site.change(job, state="failed", error_code="slow_down")
        assert json.loads(process.stdout.readline())["error_code"] == "slow_down"
        assert process.stdout.read() == ""
    assert process.returncode == 1


def test_waiting_too_long_exits_4_and_the_job_goes_on(variables: dict[str, str], client: Client) -> None:
    done = run(variables, "write", SOURCE, "/x", "--wait", "--timeout", "0.3", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["error"]) == (4, "timeout")
    assert client.get(said["job_id"]).state == "queued"
    done = run(variables, "watch", said["job_id"], "--timeout", "0")
    assert done.returncode == 4
    assert re.fullmatch(rf"blobferry: job {said['job_id']} is still queued .*\n", done.stderr)


def test_an_interrupted_watch_says_that_the_job_goes_on(variables: dict[str, str], client: Client) -> None:
    job = client.write_stream("/x", SOURCE)
    with subprocess.Popen(
        [*COMMAND, "watch", job.id],
        env=environment_with(variables) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started these tests in the background of a script has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert "queued" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == f"blobferry: interrupted; the job continues, show it with: blobferry status {job.id}\n"
    assert client.get(job.id).state == "queued"


def test_a_terminal_sees_a_countdown_and_why(variables: dict[str, str], client: Client, sqlite_site: Site) -> None:
    job = client.write_stream("/x", SOURCE)
    steps: Iterator[tuple[str, dict[str, Any]]] = iter(
        [
            ("queued", {"state": "running", "attempt": 1, "size": 4 * MIB, "bytes_done": MIB}),
            (
                "25%",
                {
                    "state": "retrying",
                    "error_code": "slow_down",
                    "error_message": "asks for fewer [red]requests",
                    "run_at": datetime.now(UTC) + timedelta(seconds=100),
                },
            ),
            ("retrying at", {"state": "failed"}),
            ("never", {}),
        ]
    )
    step = next(steps)

    def act(screen: str, pid: int) -> None:
        nonlocal step
        if step[0] in screen:
            sqlite_site.change(job, **step[1])
            step = next(steps)

    status, screen = run_on_a_terminal(variables, "watch", job.id, meanwhile=act)
    assert status == 1
    assert "1.0/4.0 MiB" in screen
    assert "attempt 1 ended: slow_down: asks for fewer [red]requests" in screen
    assert re.search(r"retrying at \S+ .*\(in \d+ s\)", screen)
    assert screen.rstrip().endswith("failed: slow_down: asks for fewer [red]requests")


# --- with a worker -------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(valkey_server: Valkey, sqlite_site: Site, tmp_path: Path) -> Iterator[Stack]:
    with moto() as s3:
        stack = Stack(
            sqlite_site.broker_url,
            sqlite_site.url,
            s3,
            tmp_path,
            settings={"BLOBFERRY_TRANSFER__PART_SIZE": str(5 * MIB), "BLOBFERRY_TRANSFER__PART_THREADS": "1"},
        )
        stack.prepare()
        yield stack


def test_a_real_transfer_is_shown_on_a_terminal_in_a_pipe_and_in_json(stack: Stack) -> None:
    file = stack.incoming / "a b.bin"
    file.write_bytes(os.urandom(MIB) * 100)
    variables = stack.environment()
    no_retries = replace(stack, settings={**stack.settings, "BLOBFERRY_RETRY__MAX_ATTEMPTS": "1"})
    with no_retries.worker():
        status, screen = run_on_a_terminal(variables, "write", str(file), "/x", "--wait")
        assert status == 0
        assert re.search(r"uploading +[━╸╺ ]+ +\d+% +[\d.]+/100.0 MiB +[\d.]+ MiB/s +\d\d:\d\d", screen)
        assert re.search(r"succeeded: /x, 100.0 MiB in [\d.]+ s\s*$", screen)

        done = run(variables, "write", str(file), "/y", "--wait")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert re.fullmatch(r"succeeded: /y, 100.0 MiB in [\d.]+ s", lines[-1])
        assert all(re.match(r"\d\d:\d\d:\d\d  \w+", line) for line in lines[1:-1])
        assert "\x1b" not in done.stdout

        done = run(variables, "write", str(file), "/z", "--wait", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["state"] == "succeeded"

        done = run(variables, "write", "/etc/passwd", "/p", "--wait")
        assert done.returncode == 1
        assert re.fullmatch(r"failed: source_not_allowed: file:///etc/passwd: .*\n", done.stderr)
