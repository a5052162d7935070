"""`python -m worker doctor`: what works, what is not guaranteed, and nothing left behind."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pydantic import SecretStr

from blobferry.jobs.webhook_receivers import webhook_receiver
from blobferry.sealing import Sealer
from dev.services import S3Service, create_bucket, free_port, moto, swift, valkey
from models import Database
from models.queries.webhook_notes import note_webhooks
from tests.conftest import alembic_config
from tests.doubles import FaultyStore, RecordingStore, RuledStore, WrappedStore, tiny_store
from tests.maintenance.webhook_site import NEW_SECRET, SECRET
from tests.models.rows import ago, submit
from worker.doctor import Finding, examine, examine_storage, exit_status, json_report, text_report
from worker.doctor.surroundings import examine_certificates
from worker.doctor.webhook_secrets import examine_webhooks
from worker.driver import Driver
from worker.errors import (
    BucketNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from worker.parameters import DriverParameters
from worker.runtime import Runtime
from worker.settings import Settings, SourcesSettings, TransferSettings, WebhooksSettings
from worker.stores.blob_values import DeleteFailure, Page
from worker.stores.local import LocalStore
from worker.stores.store import Store


def examined(store: Store, root: str = "") -> dict[str, Finding]:
    """What is found about a storage, but that a worker cannot serve from memory."""
    findings = list(examine_storage("default", Driver(store, root=root)))
    assert {finding.where for finding in findings} == {"storage default"}
    return {finding.what: finding for finding in findings if finding.what != "shared"}


def not_ok(store: Store) -> dict[str, str]:
    """What is not as it should be, and why; afterwards nothing may be left."""
    found = {what: finding.says for what, finding in examined(store).items() if finding.state != "ok"}
    assert left(store) == []
    return found


def having(found: dict[str, Finding], state: str) -> list[str]:
    """What is in that state."""
    return [what for what, finding in found.items() if finding.state == state]


def left(store: Store) -> list[str]:
    """All that is stored, finished or not."""
    keys = [entry.key for entry in store.list_page("").entries]
    return keys + [entry.key for entry in store.list_uploads()]


# --- real stores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c"])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_our_own_stores_guarantee_everything(kind: str, checksum: str, tmp_path: Path) -> None:
    store = tiny_store(checksum=checksum) if kind == "memory" else LocalStore(tmp_path / "b", checksum=checksum)
    assert not_ok(store) == {}


IGNORES = "the store ignores it"
UNKNOWN = "the store does not support it"
REFUSES = "the store refuses it even where it holds"
KNOWN: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "moto": (
        moto,
        {
            "If-None-Match on copy": IGNORES,
            "If-Match on complete": IGNORES,
            "If-Match on copy": IGNORES,
            "If-Match on the source of a copy": IGNORES,
            "If-Match on the source of a copied range": IGNORES,
            "checksum of the whole compared": IGNORES,
            "checksum of a part compared": IGNORES,
            "unfinished uploads expire": "the bucket has no such rule",
        },
    ),
    "swift": (
        swift,
        {
            "If-None-Match on copy": REFUSES,
            "If-Match on put": UNKNOWN,
            "If-Match on complete": UNKNOWN,
            "If-Match on copy": UNKNOWN,
            "If-Match on delete": REFUSES,  # of a blob in parts
            "checksum of the whole compared": IGNORES,
            "checksum of the whole shown": "the store shows none",
            "unfinished uploads expire": "the bucket has no such rule",
            "settings": "the store lacks something",
        },
    ),
}


def s3_driver(service: S3Service) -> Driver:
    return Driver.from_parameters(
        {
            "bucket": "doctor",
            "region": service.region,
            "regionendpoint": service.endpoint,
            "accesskey": service.access_key,
            "secretkey": service.secret_key,
            "forcepathstyle": True,
            "rootdirectory": "below",
        }
    )


@pytest.mark.parametrize(("start", "known"), KNOWN.values(), ids=KNOWN)
def test_a_server_is_found_to_lack_what_it_is_known_to_lack(start: Callable[[], Any], known: Mapping[str, str]) -> None:
    with start() as service:
        without_bucket = [finding for finding in examine_storage("x", s3_driver(service)) if finding.state == "broken"]
        assert [finding.what for finding in without_bucket] == ["reachable"]
        assert "doctor" in without_bucket[0].says

        create_bucket(service, "doctor")
        driver = s3_driver(service)
        findings = list(examine_storage("x", driver))
        assert left(driver.store) == []
    found = {finding.what: finding.says.partition(", so ")[0] for finding in findings if finding.state != "ok"}
    assert found == known


# --- each guarantee, one at a time -----------------------------------------------------------------------------------


class IgnorantStore(WrappedStore):
    """Takes no notice of one argument of a verb, or of one kind of condition."""

    def __init__(self, store: Store, verb: str, argument: str, field: str = "") -> None:
        super().__init__(store)
        self._ignored = (verb, argument)
        self._field = field

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        verb, argument = self._ignored
        if name == verb and (not self._field or getattr(keywords.get(argument), self._field, None)):
            keywords = {name: value for name, value in keywords.items() if name != argument}
        return super()._do(name, args, keywords)


IGNORED: dict[str, tuple[str, str, str]] = {
    "If-None-Match on put": ("put", "condition", "if_none_match"),
    "If-None-Match on complete": ("complete_upload", "condition", "if_none_match"),
    "If-None-Match on copy": ("copy", "condition", "if_none_match"),
    "If-Match on put": ("put", "condition", "if_match"),
    "If-Match on complete": ("complete_upload", "condition", "if_match"),
    "If-Match on copy": ("copy", "condition", "if_match"),
    "If-Match on delete": ("delete_batch", "if_match", ""),
    "If-Match on get": ("get", "if_match", ""),
    "If-Match on the source of a copy": ("copy", "source_if_match", ""),
    "If-Match on the source of a copied range": ("copy_part", "source_if_match", ""),
    "checksum of the whole compared": ("complete_upload", "checksum", ""),
    "checksum of a part compared": ("upload_part", "checksum", ""),
}


@pytest.mark.parametrize(("what", "ignored"), IGNORED.items(), ids=IGNORED)
def test_what_a_store_ignores_is_told_with_what_follows(what: str, ignored: tuple[str, str, str]) -> None:
    found = not_ok(IgnorantStore(tiny_store(), *ignored))
    assert list(found) == [what]
    assert found[what].startswith("the store ignores it, so ")


def test_overwrite_false_is_explained_where_it_is_not_enforced() -> None:
    says = not_ok(IgnorantStore(tiny_store(), "put", "condition", "if_none_match"))["If-None-Match on put"]
    assert "with overwrite=False, two writers of a small blob at once may both succeed" in says
    assert "a HEAD right before narrows the window" in says


class RefusingStore(WrappedStore):
    """Answers every condition of these verbs with an error, whether it holds or not."""

    error: type[Exception] = PreconditionFailedError
    arguments: tuple[str, ...] = ("condition", "if_match", "source_if_match")

    def __init__(self, store: Store, *verbs: str) -> None:
        super().__init__(store)
        self._verbs = verbs

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name in self._verbs and any(keywords.get(argument) for argument in self.arguments):
            raise self.error("no")
        return super()._do(name, args, keywords)


CONDITIONS = {what for what, (_, argument, _) in IGNORED.items() if argument == "condition"}


def test_a_store_that_knows_no_conditions_is_no_broken_one() -> None:
    store = RefusingStore(tiny_store(), "put", "complete_upload", "copy")
    store.error, store.arguments = NotSupportedError, ("condition",)
    assert set(not_ok(store)) == CONDITIONS
    assert exit_status(list(examined(store).values())) == 0
    assert all(says.startswith("the store does not support it, so ") for says in not_ok(store).values())


def test_a_condition_that_is_refused_where_it_holds_guarantees_nothing() -> None:
    """Some stores compare with something else."""
    found = not_ok(RefusingStore(tiny_store(), "put", "copy", "delete_batch"))
    assert {what for what, says in found.items() if says.startswith(f"{REFUSES}, so ")} == {
        "If-None-Match on put",
        "If-Match on put",
        "If-None-Match on copy",
        "If-Match on copy",
        "If-Match on delete",
    }


@pytest.mark.parametrize(("verb", "what"), [("get", "If-Match on get"), ("copy_part", "copy of a range")])
def test_what_cannot_do_without_its_condition_is_broken_where_that_is_refused(verb: str, what: str) -> None:
    assert having(examined(RefusingStore(tiny_store(), verb)), "broken") == [what]


class AnswerStore(WrappedStore):
    """Changes the answers to one verb."""

    def __init__(self, store: Store, verb: str, change: Callable[[Any], Any]) -> None:
        super().__init__(store)
        self._verb = verb
        self._change = change

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        return self._change(answer) if name == self._verb else answer


@pytest.mark.parametrize(
    ("what", "verb", "change", "says"),
    [
        ("checksum of the whole shown", "head", lambda head: replace(head, checksum=None), "the store shows none"),
        ("metadata kept", "head", lambda head: replace(head, metadata={}), "the store drops it"),
        ("unfinished uploads listed", "list_uploads", lambda answer: iter(()), "the store does not list it"),
    ],
)
def test_what_a_store_does_not_tell_is_told(what: str, verb: str, change: Callable[[Any], Any], says: str) -> None:
    found = examined(AnswerStore(tiny_store(), verb, change))
    assert having(found, "missing") == [what]
    assert found[what].says.startswith(f"{says}, so ")


@pytest.mark.parametrize(("seconds", "says"), [(3_600, "3600 s ahead of"), (-3_600, "3600 s behind")])
def test_clocks_that_differ_are_told(seconds: int, says: str) -> None:
    def change(page: Page) -> Page:
        return replace(page, served_at=datetime.now(UTC) + timedelta(seconds=seconds))

    assert says in examined(AnswerStore(tiny_store(), "list_page", change))["clocks agree"].says


@pytest.mark.parametrize(
    ("checksum", "missing"),
    [
        ("md5", {"checksum of the whole compared", "checksum of the whole shown"}),
        ("none", {"checksum of the whole compared", "checksum of the whole shown", "checksum of a part compared"}),
    ],
)
def test_a_storage_that_asks_for_no_checksums_has_none(checksum: str, missing: set[str]) -> None:
    assert set(not_ok(tiny_store(checksum=checksum))) == missing


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (timedelta(days=8), "ok", "after 8 days"),
        (timedelta(days=7), "ok", "after 7 days"),
        (timedelta(days=3), "missing", "after 3 days and jobs keep theirs for 7, so one that is retried or resumed"),
        (None, "missing", "have a lifecycle rule (AbortIncompleteMultipartUpload) abort uploads after 8 days"),
        (PermissionDeniedError("no"), "missing", "s3:GetLifecycleConfiguration"),
        (NotSupportedError("no"), "missing", "the store does not support it"),
        (StoreUnavailableError("HTTP 500"), "broken", "HTTP 500"),
    ],
)
def test_whether_the_bucket_aborts_unfinished_uploads_is_told(
    answer: timedelta | Exception | None, state: str, says: str
) -> None:
    found = examined(RuledStore(tiny_store(), answer))["unfinished uploads expire"]
    assert found.state == state
    assert says in found.says


# --- what has to be mended -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailableError, BucketNotFoundError, PermissionDeniedError])
def test_a_store_out_of_reach_is_one_finding(error: type[Exception]) -> None:
    verbs = ("list_page", "put", "delete_batch", "create_upload")
    found = examined(FaultyStore(tiny_store(), *verbs, times=1_000, error=lambda: error("nobody answers")))
    assert having(found, "broken") == ["reachable"]
    assert found["reachable"].says == "nobody answers"
    assert "writable" not in found


def test_a_store_that_may_not_be_written_is_told_and_tried_no_further() -> None:
    refused = FaultyStore(tiny_store(), "put", "delete_batch", times=1_000, error=lambda: PermissionDeniedError("no"))
    store = RecordingStore(refused)
    found = examined(store)
    assert (having(found, "broken"), list(found)[-1]) == (["writable"], "writable")
    assert exit_status(list(found.values())) == 1
    assert store.named("create_upload", "delete_batch") == []


def test_one_probe_that_fails_stops_no_other() -> None:
    store = FaultyStore(tiny_store(), "copy_part", times=1_000, error=lambda: StoreUnavailableError("HTTP 500"))
    broken = {"copy of a range", "If-Match on the source of a copied range"}
    assert (set(having(examined(store), "broken")), left(store)) == (broken, [])


class StubbornStore(WrappedStore):
    """Nothing goes, unless by a condition."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "delete_batch" and "if_match" not in keywords:
            return [DeleteFailure(key, "AccessDenied", "no") for key in args[0]]
        return super()._do(name, args, keywords)


def test_what_cannot_be_removed_is_told_with_where_it_is() -> None:
    store = tiny_store()
    found = examined(StubbornStore(store), root="root")["probes removed"]
    assert found.state == "broken"
    assert all(key.startswith("root/.blobferry-doctor-") for key in left(store))
    assert left(store)[0].rpartition("/")[0] in found.says


@pytest.mark.parametrize("call", [1, 2, 3, 10, 30, 60])
def test_an_interrupt_leaves_nothing_behind(call: int) -> None:
    verbs = ("put", "head", "get", "create_upload", "upload_part", "copy", "copy_part", "complete_upload", "list_page")
    store = tiny_store()
    interrupted = FaultyStore(store, *verbs, fail_at=call, when="after", error=lambda: KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        examined(interrupted)
    assert interrupted.fired == 1
    assert left(store) == []


def test_everything_happens_below_the_root_directory_and_nothing_else_is_touched() -> None:
    store = RecordingStore(tiny_store())
    store.put("root/mine", b"mine")
    store.put("elsewhere", b"mine")
    store.calls.clear()
    first, second = (examined(store, root="root") for _ in range(2))
    assert first.keys() == second.keys()
    touched = {call.args[0] for call in store.calls if isinstance(call.args[0], str)}
    touched |= {key for call in store.named("delete_batch") for key in call.args[0]}
    assert {key.rpartition("/")[0].partition("-doctor-")[0] for key in touched} == {"root/.blobferry"}
    assert len({key.split("/")[1] for key in touched}) == 2  # a run never meets another's
    assert left(store) == ["elsewhere", "root/mine"]


# --- around the worker -----------------------------------------------------------------------------------------------


def surroundings(
    database_url: str = "sqlite:///:memory:",
    broker_url: str = "redis://127.0.0.1:1/0",
    file_roots: tuple[Path, ...] = (),
    storages: Mapping[str, Any] | None = None,
) -> dict[tuple[str, str], Finding]:
    """What is found with these settings, by place and name."""
    settings = Settings.model_construct(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        sources=SourcesSettings(file_roots=file_roots),
        transfer=TransferSettings(),
        storages={name: DriverParameters.parse(parameters) for name, parameters in (storages or {}).items()},
    )
    runtime = Runtime(settings)
    try:
        findings = examine(runtime)
    finally:
        runtime.close()
    assert "geheim" not in text_report(findings) + json_report(findings)
    return {(finding.where, finding.what): finding for finding in findings}


def database(url: str) -> list[tuple[str, str, str]]:
    found = surroundings(url)
    return [(what, finding.state, finding.says) for (where, what), finding in found.items() if where == "database"]


def test_a_migrated_database_is_well(sqlite_url: str) -> None:
    assert [line[:2] for line in database(sqlite_url)] == [("reachable", "ok"), ("migrated", "ok")]


def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    ((what, state, says),) = database(f"sqlite:///{tmp_path}/none.db")
    assert (what, state) == ("reachable", "broken")
    assert "blobferry-worker migrate" in says
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("", ["blobferry-worker migrate"]),
        ("0001", ["at revision 0001", "run `blobferry-worker migrate`"]),
        ("9999", ["at revision 9999", "update the worker"]),
    ],
    ids=["an empty one", "an older one", "a newer one"],
)
def test_a_database_of_another_release_is_told_what_to_do(tmp_path: Path, revision: str, says: list[str]) -> None:
    url, file = f"sqlite:///{tmp_path}/other.db", tmp_path / "other.db"
    file.touch()
    if revision:
        command.upgrade(alembic_config(url), "0001")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE blobferry_alembic_version SET version_num = ?", [revision])
    _, (what, state, found) = database(url)
    assert (what, state) == ("migrated", "broken")
    assert [part for part in says if part not in found] == []


def test_a_database_out_of_reach_is_told_without_its_password() -> None:
    ((what, state, _),) = database("postgresql://me:geheim@127.0.0.1:1/app")
    assert (what, state) == ("reachable", "broken")


def test_a_broker_that_answers_is_well() -> None:
    with valkey() as service:
        assert surroundings(broker_url=service.url)["broker", "reachable"].state == "ok"


def test_a_broker_out_of_reach_is_told_without_its_password() -> None:
    found = surroundings(broker_url=f"redis://:geheim@127.0.0.1:{free_port()}/0")["broker", "reachable"]
    assert (found.state, "refused" in found.says) == ("broken", True)


def test_file_roots_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    roots = {tmp_path: "ok", tmp_path / "none": "broken", tmp_path / "file": "broken"}
    found = surroundings(file_roots=tuple(roots))
    assert {root: found[f"file root {root}", "readable"].state for root in roots} == roots


def test_every_configured_storage_is_examined_and_memory_is_none_for_a_worker(tmp_path: Path) -> None:
    storages = {"near": {"driver": "local", "rootdirectory": str(tmp_path / "blobs")}, "toy": {"driver": "memory"}}
    found = surroundings(storages=storages)
    assert found["storage near", "writable"].state == "ok"
    broken = [key for key, finding in found.items() if finding.state == "broken" and key[0].startswith("storage")]
    assert broken == [("storage toy", "shared")]


def test_a_worker_without_storages_is_told_so() -> None:
    assert surroundings()["storages", "configured"].state == "broken"


# --- telling ---------------------------------------------------------------------------------------------------------

FINDINGS = [
    Finding("broker", "reachable", "ok"),
    Finding("storage a", "copy", "missing", "moves\x1b[2J are slow"),
    Finding("storage a", "writable", "broken", "no"),
]


def test_findings_are_told_in_lines_below_where_they_are() -> None:
    assert text_report(FINDINGS).splitlines() == [
        "broker",
        "  ok       reachable",
        "storage a",
        r"  missing  copy: moves\x1b[2J are slow",
        "  broken   writable: no",
        "1 broken, 1 not guaranteed",
    ]


def test_findings_are_told_to_programs() -> None:
    told = {"where": "storage a", "what": "writable", "state": "broken", "says": "no"}
    assert json.loads(json_report(FINDINGS))[2] == told


def test_only_what_has_to_be_mended_makes_the_exit_status() -> None:
    assert [exit_status(findings) for findings in ([], FINDINGS[:1], FINDINGS[:2], FINDINGS)] == [0, 0, 0, 1]


def with_storage(parameters: Mapping[str, Any]) -> Settings:
    return Settings.model_construct(storages={"default": DriverParameters.parse(parameters)})


def test_a_storage_whose_certificate_is_not_checked_is_told() -> None:
    given = {"bucket": "b", "region": "r"}
    (finding,) = examine_certificates("default", with_storage(given | {"verify": False}))
    assert (finding.where, finding.state) == ("storage default", "missing")
    assert "verify = false: whoever is on the way can read and change blobs" in finding.says
    assert list(examine_certificates("default", with_storage(given))) == []
    assert list(examine_certificates("default", with_storage({"driver": "memory", "verify": False}))) == []


# --- webhooks --------------------------------------------------------------------------------------------------------


def hooks(database: Database, **settings: Any) -> dict[str, tuple[str, str]]:
    """What is found about webhooks, by name."""
    parameters = DriverParameters.parse({"driver": "memory", "webhook": "https://u:geheim@shop.example/hook?x=geheim"})
    worker = Settings.model_construct(webhooks=WebhooksSettings(**settings), storages={"default": parameters})
    return {found.what: (found.state, found.says) for found in examine_webhooks(worker, database)}


def test_secrets_of_webhooks_are_counted_and_not_shown(sqlite_database: Database) -> None:
    found = hooks(sqlite_database, secrets={"default": [SECRET], "billing": [SECRET, NEW_SECRET]})
    assert found == {
        "secret default": ("ok", "1 secret"),
        "secret billing": ("ok", "2 secrets, which all sign"),
        "storage default": ("ok", "https://***@shop.example/hook?x=***, signed by default"),
    }
    assert hooks(sqlite_database, secrets={"default": [SECRET]}, allow_http=True)["private"][0] == "missing"


def test_a_secret_that_webhooks_wait_for_is_missed(sqlite_database: Database) -> None:
    job_id = submit(sqlite_database, finished_at=ago(0))
    receiver = webhook_receiver("https://shop.example/", "billing", Sealer())
    with sqlite_database.begin() as session:
        note_webhooks(session, {job_id: ("default", {"webhook": receiver})})
    found = hooks(sqlite_database, secrets={"default": [SECRET]})
    says = "webhooks wait for it: set webhooks.secrets.billing, unless another worker has it"
    assert found["secret billing"] == ("broken", says)
    assert hooks(sqlite_database, secrets={"billing": [SECRET]})["secret billing"][0] == "ok"


def test_a_file_of_authorities_that_is_not_there_is_named(sqlite_database: Database) -> None:
    state, says = hooks(sqlite_database, ca_file=Path("/nowhere/ca.pem"))["can be sent"]
    assert state == "broken"
    assert says.startswith("webhooks.ca_file: /nowhere/ca.pem")
