"""The setting BLOBFERRY, and what `manage.py check` says of it."""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.test import override_settings
from sqlalchemy import make_url

from blobferry import Client
from blobferry.django import ferry
from blobferry.django.ferries import Ferry
from blobferry.django.system_checks import TAG
from blobferry.errors import ConfigurationError
from tests.django.conftest import as_in_settings, connect

BROKER = {"BROKER_URL": "redis://127.0.0.1:1/0"}


def found(given: Any) -> list[str]:
    """The ids and texts of what the checks say of this value of BLOBFERRY."""
    with override_settings(BLOBFERRY=given):
        return [f"{message.id} {message.msg}" for message in run_checks(tags=[TAG])]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "blobferry.E001 BLOBFERRY: needs a dict, got list"),
        ({"BROKER": "redis://"}, "E001 BLOBFERRY['BROKER']: is unknown; known keys: BROKER_OPTIONS, BROKER_URL, DATAB"),
        ({"BROKER_URL": 5}, "blobferry.E001 BLOBFERRY['BROKER_URL']: needs a text, got int"),
        ({"BROKER_OPTIONS": {"tsl": True}}, "unknown option 'tsl'; known options: ca_file, "),
        ({"SPOOL_DIR": 5}, "blobferry.E001 BLOBFERRY['SPOOL_DIR']: needs the path of a directory, got int"),
        ({"SPOOL_DIR": "spool"}, "blobferry.E002 spool_dir: needs an absolute path, got 'spool'"),
        ({"STORAGES": ["default"]}, "E001 BLOBFERRY['STORAGES']: needs a dict of storages by name, got list"),
        ({"STORAGES": {"default": {"bucket": "b"}}}, "blobferry.E002 storages.default.region: is missing"),
        ({"PUBLISH_IN_TESTS": "no"}, "E001 BLOBFERRY['PUBLISH_IN_TESTS']: needs True or False, got str"),
        ({"DATABASE": "nowhere"}, "E002 BLOBFERRY['DATABASE']: 'nowhere' is not in DATABASES; there are: default, oth"),
        ({"BROKER_URL": "nonsense"}, "blobferry.E002 broker_url: "),
        ({"ENCRYPTION_KEYS": ["short"]}, "blobferry.E002 encryption_keys: "),
        ({"PATHS": "all"}, "blobferry.E002 keys: "),
        ({}, "blobferry.W001 BLOBFERRY['BROKER_URL'] is not set"),
    ],
)
def test_each_mistake_is_reported_once_and_by_name(given: Any, said: str) -> None:
    (message,) = found(given)
    assert said in message


def test_settings_that_work_are_not_reported() -> None:
    assert found(BROKER | {"DATABASE": "other", "RESULT_BACKEND": None, "BROKER_OPTIONS": {"master_name": "m"}}) == []


def test_a_storage_of_the_project_lacks_nothing(tmp_path: Path) -> None:
    storages = {"films": {"BACKEND": "blobferry.django.storage.FerryStorage"}}
    with override_settings(STORAGES=storages):
        assert [message.partition(":")[0] for message in found(BROKER)] == [
            "blobferry.E004 BLOBFERRY['SPOOL_DIR'] is not set"
        ]
        assert found(BROKER | {"SPOOL_DIR": tmp_path}) == []
        with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
            (message,) = found(BROKER | {"SPOOL_DIR": tmp_path})
    assert message.startswith("blobferry.W004 the URLs of blobferry.django are not included")


def test_uploads_are_spooled_into_the_directory_of_the_setting(tmp_path: Path) -> None:
    small, large = SimpleUploadedFile("a.mp4", b"hello"), TemporaryUploadedFile("a.mp4", "video/mp4", 5, None)
    large.write(b"hello")
    with override_settings(BLOBFERRY=BROKER | {"SPOOL_DIR": tmp_path}), large:
        found = [ferry.spool(upload) for upload in (small, large)]
    for spooled in found:
        assert (spooled.path.parent, spooled.path.read_bytes(), spooled.size) == (tmp_path, b"hello", 5)


STORAGE = {"bucket": "media", "region": "eu-central-1", "accesskey": "a", "secretkey": "b"}


def test_urls_of_the_storages_of_the_setting_are_signed_here_and_so_in_tests_too() -> None:
    with override_settings(BLOBFERRY={"STORAGES": {"default": STORAGE}}):
        urls = [ferry.url_for("/a"), *ferry.urls_for(["/a"]), asyncio.run(ferry.aurl_for("/a"))]
        urls += asyncio.run(ferry.aurls_for(["/a"]))
    assert {url.partition("?")[0] for url in urls} == {"https://media.s3.eu-central-1.amazonaws.com/a"}
    assert len(urls) == 4


def test_each_method_of_client_has_one_for_async_views() -> None:
    """But for those that wait, and so would keep the one thread that has Django's connections."""
    sync = {name for name in vars(Client) if not name.startswith("_")} - {"from_env", "close", "on"}
    sync -= {"wait", "watch", "listen", "handle"}
    assert {name for name in sync if not inspect.iscoroutinefunction(getattr(Ferry, f"a{name}", None))} == set()


def test_a_database_that_we_do_not_support_is_named() -> None:
    connect("default", {"ENGINE": "django.db.backends.dummy"})
    try:
        (message,) = found(BROKER)
    finally:
        connect("default", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    assert "DATABASES['default'] is unknown; only PostgreSQL and SQLite are supported" in message


@pytest.mark.parametrize(
    ("django_url", "client_url", "is_same"),
    [
        ("sqlite:////srv/app.db", "sqlite:////srv/app.db", True),
        ("sqlite:////srv/app.db", "sqlite:////srv/jobs.db", False),
        ("postgresql://db/app", "sqlite:////srv/app.db", False),
        ("postgresql://db/app", "postgresql://u:p@db/app", True),
        ("postgresql:///app", "postgresql://u:p@db/app", True),
        ("postgresql://db/app", "postgresql://db/jobs", False),
        ("postgresql://db/app", "postgresql://other/app", False),
    ],
)
def test_the_database_of_other_clients_is_compared(
    monkeypatch: pytest.MonkeyPatch, django_url: str, client_url: str, is_same: bool
) -> None:
    connect("default", as_in_settings(make_url(django_url).render_as_string(hide_password=False)))
    monkeypatch.setenv("BLOBFERRY_DATABASE_URL", client_url)
    try:
        assert [message.partition(" ")[0] for message in found(BROKER)] == ([] if is_same else ["blobferry.W002"])
    finally:
        connect("default", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})


def test_the_client_is_made_anew_after_its_settings_have_changed() -> None:
    with override_settings(BLOBFERRY={"DATABASE": "other"}):
        assert ferry.alias == "other"
    with override_settings(BLOBFERRY={}):
        assert ferry.alias == "default"
    with override_settings(BLOBFERRY={"BROKER": ""}), pytest.raises(ConfigurationError, match="unknown"):
        ferry.get("a")
