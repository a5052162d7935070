"""Credentials that expire, are renewed or come late, while a store is in use."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.stores.scripted_server import Answer, ScriptedServer
from worker.errors import CredentialsError
from worker.stores.s3.s3_store import S3Access, S3Store

OK = Answer(headers={"ETag": '"e"'})
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"

PROGRAM = """
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
number = int(count.read_text()) + 1
count.write_text(str(number))
key = {"AccessKeyId": f"KEY{number}", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": sys.argv[2]}
print(json.dumps({"Version": 1} | key))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where boto3 looks for credentials, and nowhere else."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def ambient(home: Path, server: ScriptedServer) -> S3Store:
    """A store that takes its credentials from there."""
    access = S3Access(region="us-east-1", endpoint=server.endpoint, path_style=True, max_attempts=1)
    return S3Store(access, "bucket")


def write_key(home: Path, key: str) -> None:
    (home / "credentials").write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")


def keys(server: ScriptedServer) -> list[str]:
    """By which access key each request was signed."""
    return re.findall(r"Credential=(\w+)/", " ".join(request.headers["authorization"] for request in server.requests))


def test_credentials_that_expire_are_renewed_between_two_parts(
    home: Path, server: ScriptedServer, ambient: S3Store
) -> None:
    (home / "count").write_text("0")
    expiration = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # boto3 renews ten minutes before
    (home / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} {home / 'program.py'} {home / 'count'} {expiration}"
    (home / "config").write_text(f"[default]\ncredential_process = {command}\n")
    server.script(OK)
    for number in (1, 2, 3):
        ambient.upload_part("k", "u", number, b"part")

    used = [int(key.removeprefix("KEY")) for key in keys(server)]
    assert used == sorted(set(used))  # each part by newer ones than the last
    assert int((home / "count").read_text()) == used[-1]


def test_credentials_that_were_renewed_in_their_file_are_read_again_once_the_old_ones_are_refused(
    home: Path, server: ScriptedServer, ambient: S3Store
) -> None:
    write_key(home, "OLD")
    server.script(OK, Answer(400, EXPIRED), OK)
    ambient.upload_part("k", "u", 1, b"part")
    write_key(home, "NEW")
    with pytest.raises(CredentialsError, match="ExpiredToken"):
        ambient.upload_part("k", "u", 2, b"part")
    ambient.upload_part("k", "u", 2, b"part")
    assert keys(server) == ["OLD", "OLD", "NEW"]


def test_credentials_that_come_late_are_found(home: Path, server: ScriptedServer, ambient: S3Store) -> None:
    server.script(OK)
    with pytest.raises(CredentialsError):
        ambient.upload_part("k", "u", 1, b"part")
    write_key(home, "LATE")
    ambient.upload_part("k", "u", 1, b"part")
    assert keys(server) == ["LATE"]


def test_a_session_token_of_the_settings_cannot_be_renewed_and_the_error_says_so(server: ScriptedServer) -> None:
    server.script(Answer(400, EXPIRED))
    with pytest.raises(CredentialsError, match="sessiontoken from the settings: renew that and restart") as caught:
        server.store(session_token="t0ken").upload_part("k", "u", 1, b"part")
    assert caught.value.transient
    assert "t0ken" not in str(caught.value)
