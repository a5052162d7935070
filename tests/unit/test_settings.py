"""Settings: variables over the file, every wrong one named, no secret shown."""

import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from models import queries
from worker.errors import ConfigurationError
from worker.maintenance import caretaker
from worker.parameters import DriverParameters
from worker.settings import (
    LeaseSettings,
    RetentionSettings,
    RetrySettings,
    Settings,
    SweepSettings,
    TransferSettings,
    load_settings,
)
from worker.units import MIB

Load = Callable[..., Settings]
Refuse = Callable[..., ConfigurationError]
LEAST = {"BLOBFERRY_DATABASE_URL": "sqlite:///jobs.db"}
KEYS = [b64encode(bytes([number]) * 32).decode() for number in (0, 1)]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads settings as a process with these variables would, and this file."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("BLOBFERRY_"):
            del os.environ[name]

    def load_(
        variables: Mapping[str, str] | None = None, toml: str | None = None, least: Mapping[str, str] = LEAST
    ) -> Settings:
        os.environ.update({**least, **(variables or {})})
        if toml is not None:
            file = tmp_path / "blobferry.toml"
            file.write_text(toml)
            os.environ["BLOBFERRY_CONFIG"] = str(file)
        return load_settings.__wrapped__()

    yield load_
    os.environ.clear()
    os.environ.update(before)


def test_a_database_is_all_that_has_to_be_said(load: Load) -> None:
    settings = load()
    assert settings.database_url.get_secret_value() == "sqlite:///jobs.db"
    assert settings.transfer.part_size == 16 * MIB
    assert (settings.lease.seconds, settings.lease.heartbeat_seconds, settings.lease.margin_seconds) == (30, 10, 5)
    assert settings.sources.file_roots == ()
    assert settings.storages == {}


@pytest.fixture
def refused(load: Load) -> Refuse:
    """Loads wrong settings, for the error."""

    def refused_(
        variables: Mapping[str, str] | None = None, toml: str | None = None, least: Mapping[str, str] = LEAST
    ) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            load(variables, toml, least)
        return caught.value

    return refused_


def test_settings_are_read_once_in_a_process(load: Load) -> None:
    load()
    load_settings.cache_clear()
    first = load_settings()
    os.environ["BLOBFERRY_CONCURRENCY"] = "7"
    assert load_settings() is first
    load_settings.cache_clear()


def test_a_file_is_read_and_variables_go_over_it(load: Load) -> None:
    toml = """
    concurrency = 7
    transfer = {part_threads = 3, part_size = 8388608}
    storages.default = {bucket = "from-file", region = "eu-central-1"}
    storages.archive = {bucket = "archive", regionendpoint = "http://127.0.0.1:9000"}
    sources.file_roots = ["/srv/incoming", "/srv/other"]
    """
    variables = {
        "BLOBFERRY_TRANSFER__PART_THREADS": "5",
        "BLOBFERRY_STORAGES__DEFAULT__BUCKET": "from-variable",
        "BLOBFERRY_STORAGES__DEFAULT__FORCEPATHSTYLE": "true",
    }
    settings = load(variables, toml)
    default, archive = settings.storages["default"], settings.storages["archive"]
    assert (settings.concurrency, settings.transfer.part_threads, settings.transfer.part_size) == (7, 5, 8388608)
    assert (default.bucket, default.region, default.forcepathstyle) == ("from-variable", "eu-central-1", True)
    assert archive.bucket == "archive"
    assert [str(root) for root in settings.sources.file_roots] == ["/srv/incoming", "/srv/other"]


def test_settings_cannot_be_changed(load: Load) -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.concurrency = 5
    with pytest.raises(ValueError, match="frozen"):
        settings.transfer.part_size = 5


WRONG_VALUES: dict[str, tuple[str, ...]] = {  # by the setting, which the error names
    "concurrency": ("0", "many"),
    "drain_seconds": ("0", "inf"),
    "transfer.part_threads": ("0", "65"),
    "transfer.part_size": ("1048576", "6442450944"),
    "transfer.slice_seconds": ("0", "nan", "inf"),
    "transfer.verify_seconds": ("-1", "inf"),
    "lease.seconds": ("1", "601"),
    "lease.heartbeat_seconds": ("0",),
    "lease.margin_seconds": ("0",),
    "retry.max_attempts": ("0",),
    "retry.base_seconds": ("0",),
    "retry.max_restarts": ("-1",),
    "retention.job_seconds": ("-1", "inf"),
    "retention.tombstone_seconds": ("inf",),
    "retention.failed_upload_seconds": ("inf",),
    "retention.abort_recheck_seconds": ("inf",),
    "sweep.interval_seconds": ("0", "inf"),
    "storages.default.bucket": ("",),
    "storages.default.driver": ("ftp",),
    "storages.default.checksum": ("sha1",),
    "storages.default.secure": ("yes",),
    "storages.default.chunksize": ("1", "large"),
    "storages.default.keyid": ("key",),
    "storages.default.buckt": ("x",),
    "transfer.part_thread": ("4",),
    "sources.file_root": ('["/srv"]',),
    "sources.file_roots": ('["srv"]',),
}
WRONG = [  # the setting, its value, and the name that the error says
    *((name, value, name) for name, values in WRONG_VALUES.items() for value in values),
    ("lease.heartbeat_seconds", "25", "lease"),
    ("storages.default.accesskey", "AKID", "storages.default.accesskey, secretkey"),
]


def storage_of(name: str) -> dict[str, str]:
    complete = {"storages.default.bucket": "b", "storages.default.region": "us-east-1"}
    return complete if name.startswith("storages") else {}


@pytest.mark.parametrize(("name", "value", "named"), WRONG)
def test_a_wrong_variable_is_named(name: str, value: str, named: str, refused: Refuse) -> None:
    values = storage_of(name) | {name: value}
    error = refused({"BLOBFERRY_" + key.upper().replace(".", "__"): text for key, text in values.items()})
    assert error.name == named
    if len(value) > 2 and name not in ("lease.heartbeat_seconds", "sources.file_roots"):
        assert value not in error.problem.replace("infinity", "")  # it might be a secret in the wrong place


@pytest.mark.parametrize(("name", "value", "named"), [row for row in WRONG if row[1] not in ("", "nan", "inf")])
def test_a_wrong_value_in_the_file_is_named(name: str, value: str, named: str, refused: Refuse) -> None:
    values = storage_of(name) | {name: value}
    lines = [f"{key} = {text if text.startswith('[') else repr(text)}" for key, text in values.items()]
    assert refused(toml="\n".join(lines)).name == named


@pytest.mark.parametrize("name", ["BLOBFERRY_DATABSE_URL", "BLOBFERRY_PART_SIZE", "BLOBFERRY_TRANSFERS__PART_SIZE"])
def test_an_unknown_variable_is_refused_with_those_that_there_are(name: str, refused: Refuse) -> None:
    error = refused({name: "1"})
    assert error.name == name
    assert "BLOBFERRY_DATABASE_URL" in str(error)


LINKS: list[tuple[str, str]] = [  # of services, as kubelet sets them: names behind BLOBFERRY_, and values
    ("SERVICE_HOST", "10.0.0.1"),
    ("SERVICE_PORT", "80"),
    ("SERVICE_PORT_HTTP", "80"),
    ("PORT", "tcp://10.0.0.1:80"),
    ("PORT_80_TCP", "tcp://10.0.0.1:80"),
    ("PORT_80_TCP_ADDR", "10.0.0.1"),
    ("PORT_53_UDP", "udp://10.0.0.1:53"),
    ("PORT_53_UDP_PROTO", "udp"),
    ("PORT_9899_SCTP_PORT", "9899"),
    ("REDIS_SERVICE_HOST", "fd00::7"),
    ("REDIS_PORT", "tcp://[fd00::7]:6379"),
    ("REDIS_MASTER_0_PORT", "sctp://10.0.0.7:6379"),
    ("WORKER_SERVICE_PORT_METRICS", "9100"),
    ("WORKER_SERVICE_PORT_HTTP_2", "9100"),
    ("FLOWER_PORT_5555_TCP_ADDR", "10.0.0.9"),
    ("DATABASE_URL_SERVICE_HOST", "10.0.0.9"),
    ("SERVICE_SERVICE_HOST", "10.0.0.9"),
    ("PORT_PORT", "tcp://10.0.0.9:1"),
    ("_REDIS_SERVICE_HOST", "10.0.0.9"),
    ("STORAGES__DEFAULT_SERVICE_HOST", "10.0.0.9"),
    ("TRANSFER__X_PORT", "tcp://10.0.0.9:1"),
    # Those of Docker:
    ("NAME", "/web/blobferry"),
    ("DB_NAME", "/web/blobferry_db"),
    ("ENV_PATH", "/usr/bin"),
    ("DB_ENV_POSTGRES_PASSWORD", "x"),
    ("PORT_80_TCP_START", "tcp://172.17.0.2:80"),
    ("PORT_80_TCP_PORT_END", "89"),
    ("PORT_END", "tcp://172.17.0.2:89"),
]


@pytest.mark.parametrize(("name", "value"), LINKS)
def test_a_variable_that_kubernetes_or_docker_sets_for_a_service_is_ignored(name: str, value: str, load: Load) -> None:
    assert load({f"BLOBFERRY_{name}": value}) == load({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_SERVICE_HOSTS", "10.0.0.1"),
        ("SERVICE_NAME", "blobferry"),
        ("BROKER_PORT", "6379"),  # a link's value is an address
        ("DATABASE_HOST", "10.0.0.1"),
        ("PORT_80_HTTP", "tcp://10.0.0.1:80"),
        ("REDIS_SERVICE_PORTS", "80"),
        ("REDIS_PORT_TCP_ADDR", "10.0.0.1"),
        ("SOURCES__PORT", "tcp"),
    ],
)
def test_a_name_that_only_resembles_a_service_link_is_refused(name: str, value: str, load: Load) -> None:
    with pytest.raises(ConfigurationError):
        load({f"BLOBFERRY_{name}": value})


@pytest.mark.parametrize(
    "url", ["", "mysql://root:s3cr3t@host/db", "no url s3cr3t", "postgresql+nothing://u:s3cr3t@h/d"]
)
def test_a_missing_or_wrong_database_is_named_without_its_password(url: str, refused: Refuse) -> None:
    error = refused({"BLOBFERRY_DATABASE_URL": url})
    assert error.name == "database_url"
    assert "s3cr3t" not in str(error)


def test_a_missing_setting_says_where_it_may_stand(refused: Refuse) -> None:
    problem = refused(least={}).problem
    where = "set BLOBFERRY_DATABASE_URL, or BLOBFERRY_CONFIG to the path of a blobferry.toml, which is not set"
    assert where in problem
    assert refused(toml="concurrency = 2\n", least={}).problem == "is missing"


def test_a_wrong_file_is_named(refused: Refuse, tmp_path: Path) -> None:
    missing = refused({"BLOBFERRY_CONFIG": str(tmp_path / "none.toml")})
    assert (missing.name, "none.toml" in str(missing)) == ("BLOBFERRY_CONFIG", True)
    assert refused(toml="[trnsfer]\npart_size = 1").name == "trnsfer"
    assert "blobferry.toml" in str(refused(toml="[transfer\n"))


def test_a_list_that_is_no_json_names_its_setting(refused: Refuse) -> None:
    assert "sources" in str(refused({"BLOBFERRY_SOURCES__FILE_ROOTS": "/srv/incoming"}))


def test_no_secret_shows_in_any_repr(load: Load) -> None:
    settings = load(
        {
            "BLOBFERRY_DATABASE_URL": "postgresql://u:s3cr3t-db@h/d",
            "BLOBFERRY_BROKER_URL": "redis://:s3cr3t-broker@h/0",
            "BLOBFERRY_RESULT_BACKEND": "redis://:s3cr3t-result@h/0",
            "BLOBFERRY_STORAGES__DEFAULT__BUCKET": "b",
            "BLOBFERRY_STORAGES__DEFAULT__REGION": "us-east-1",
            "BLOBFERRY_STORAGES__DEFAULT__ACCESSKEY": "s3cr3t-access",
            "BLOBFERRY_STORAGES__DEFAULT__SECRETKEY": "s3cr3t-key",
            "BLOBFERRY_STORAGES__DEFAULT__SESSIONTOKEN": "s3cr3t-token",
        }
    )
    assert "s3cr3t" not in repr(settings) + str(settings) + repr(settings.storages) + settings.model_dump_json()
    assert settings.storages["default"].secretkey is not None
    assert settings.storages["default"].secretkey.get_secret_value() == "s3cr3t-key"


@pytest.mark.parametrize("text", [f"{KEYS[0]},{KEYS[1]}", f" {KEYS[0]} , {KEYS[1]} ", f'["{KEYS[0]}", "{KEYS[1]}"]'])
def test_encryption_keys_are_a_json_list_or_have_commas_between(text: str, load: Load) -> None:
    settings = load({"BLOBFERRY_ENCRYPTION_KEYS": text})
    assert [key.get_secret_value() for key in settings.encryption_keys] == KEYS
    assert not any(key in repr(settings) + settings.model_dump_json() for key in KEYS)


def test_encryption_keys_may_stand_in_the_file(load: Load) -> None:
    settings = load(toml=f"encryption_keys = ['{KEYS[0]}', '{KEYS[1]}']")
    assert [key.get_secret_value() for key in settings.encryption_keys] == KEYS
    assert load({"BLOBFERRY_ENCRYPTION_KEYS": ""}).encryption_keys == ()


@pytest.mark.parametrize("text", ["s3cr3t", f"{KEYS[0]},s3cr3t", '["s3cr3t', "[7]", f"{KEYS[0]};{KEYS[1]}"])
def test_a_bad_encryption_key_is_named_and_not_shown(text: str, refused: Refuse) -> None:
    error = refused({"BLOBFERRY_ENCRYPTION_KEYS": text})
    assert error.name.startswith("encryption_keys")
    assert not any(secret in repr(error) for secret in ("s3cr3t", *KEYS))


def test_a_secret_in_the_wrong_place_does_not_show_in_the_error(refused: Refuse) -> None:
    error = refused({"BLOBFERRY_STORAGES__DEFAULT__BUCKET": "b", "BLOBFERRY_STORAGES__DEFAULT__SECURE": "s3cr3t"})
    assert "s3cr3t" not in f"{error}{error!r}"
    assert (error.__cause__, error.__suppress_context__) == (None, True)


def test_the_registrys_parameters_can_be_pasted() -> None:
    parameters = DriverParameters.parse(
        {
            "accesskey": "AKID",
            "secretkey": "secret",
            "region": "us-east-1",
            "regionendpoint": "http://127.0.0.1:9000",
            "forcepathstyle": "TRUE",
            "bucket": "b",
            "encrypt": True,
            "keyid": "key",
            "secure": "false",
            "chunksize": "5242880",
            "multipartcopychunksize": 33554432,
            "multipartcopymaxconcurrency": 100,
            "multipartcopythresholdsize": 33554432,
            "rootdirectory": "/some/prefix",
            "storageclass": "STANDARD_IA",
        }
    )
    assert (parameters.forcepathstyle, parameters.secure, parameters.chunksize) == (True, False, 5 * MIB)


WRONG_PARAMETERS: dict[str, tuple[object, ...]] = {
    "secure": (1, 0, "yes", "1", None, 1.0),  # not a boolean, "true" or "false"
    "multipartcopychunksize": (True, 5.5e6, "5MB", None, [5242880]),  # not a whole number
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG_PARAMETERS for value in WRONG_PARAMETERS[name]]
)
def test_a_parameter_is_of_its_type(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        DriverParameters.parse({"bucket": "b", "region": "r", name: value})


MINUTE, HOUR, DAY = 60, 3600, 24 * 3600


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (LeaseSettings().seconds, 30),
        (LeaseSettings().heartbeat_seconds, 10),
        (LeaseSettings().margin_seconds, 5),
        (TransferSettings().slice_seconds, 5 * MINUTE),
        (RetrySettings().max_restarts, 3),
        (RetentionSettings().failed_upload_seconds, 24 * HOUR),
        (RetentionSettings().paused_upload_seconds, 7 * DAY),
        (RetentionSettings().abort_recheck_seconds, HOUR),
        (RetentionSettings().tombstone_seconds, 30 * DAY),
        (SweepSettings().interval_seconds, 5),
        (caretaker.AHEAD, 4),
        (queries.REPUBLISH_AFTER, 30),
        (queries.MAX_CRASH_STREAK, 5),
        (queries.MAX_CRASHES, 20),
    ],
)
def test_without_a_word_in_the_settings_it_is_as_promised(number: float, expected: float) -> None:
    assert number == expected


def test_storages_have_the_keys_of_their_own_or_those_of_the_worker(load: Load) -> None:
    toml = """
        keys = "any"
        [storages.default]
        driver = "memory"
        [storages.strict]
        driver = "memory"
        keys = "registry"
    """
    storages = load(toml=toml).storages
    assert {name: storage.keys for name, storage in storages.items()} == {"default": "any", "strict": "registry"}
    assert load({"BLOBFERRY_KEYS": "registry"}, toml).storages["default"].keys == "registry"


# --- webhooks --------------------------------------------------------------------------------------------------------

HOOK = "whsec_" + b64encode(b"\7" * 32).decode()
OTHER_HOOK = "whsec_" + b64encode(b"\x08" * 24).decode()


def hook_secrets(settings: Settings) -> dict[str, list[str]]:
    return {name: [each.get_secret_value() for each in found] for name, found in settings.webhooks.secrets.items()}


def test_secrets_of_webhooks_stand_alone_in_a_list_or_with_commas_between(load: Load) -> None:
    toml = f"[webhooks.secrets]\ndefault = '{HOOK}'\nbilling = ['{HOOK}', '{OTHER_HOOK}']"
    assert hook_secrets(load(toml=toml)) == {"default": [HOOK], "billing": [HOOK, OTHER_HOOK]}
    by_variable = load({"BLOBFERRY_WEBHOOKS__SECRETS__BILLING": f"{OTHER_HOOK}, {HOOK}"}, toml="")
    assert hook_secrets(by_variable) == {"billing": [OTHER_HOOK, HOOK]}
    assert HOOK not in repr(by_variable)


@pytest.mark.parametrize(
    "secret",
    ["geheim", "whsec_geheim", "whsec_!!!!", HOOK.removeprefix("whsec_"), "whsec_" + b64encode(b"x" * 23).decode(), ""],
)
def test_a_malformed_secret_of_webhooks_is_named_and_not_shown(secret: str, refused: Refuse) -> None:
    error = refused({"BLOBFERRY_WEBHOOKS__SECRETS__BILLING": f"{HOOK},{secret}"})
    assert error.name == "webhooks.secrets.billing"
    assert error.problem.startswith("secret 2 of 2 is not 'whsec_' and 24 to 64 random bytes in base64")
    assert not secret or secret not in str(error).replace("whsec_$", "")


STORAGE = {"BLOBFERRY_STORAGES__DEFAULT__DRIVER": "memory"}
HOOKED = {**STORAGE, "BLOBFERRY_STORAGES__DEFAULT__WEBHOOK": "https://shop.example/hook"}


def test_the_webhook_of_a_storage_needs_a_secret_and_https(load: Load, refused: Refuse) -> None:
    secrets = {"BLOBFERRY_WEBHOOKS__SECRETS__DEFAULT": HOOK}
    assert load({**HOOKED, **secrets}).storages["default"].webhook_secret == "default"
    plain = {**HOOKED, **secrets, "BLOBFERRY_STORAGES__DEFAULT__WEBHOOK": "http://shop.example/hook"}
    error = refused(plain)
    assert (error.name, error.problem) == (
        *("storages.default.webhook", "is no https: URL (webhooks.allow_http would allow it)"),
    )
    load({**plain, "BLOBFERRY_WEBHOOKS__ALLOW_HTTP": "true", "BLOBFERRY_STORAGES__DEFAULT__WEBHOOK_SECRET": "default"})


def test_the_webhook_of_a_storage_names_a_secret_that_is_there(refused: Refuse) -> None:
    error = refused(HOOKED)
    assert error.name == "storages.default.webhook_secret"
    assert error.problem == "there is no webhooks.secrets.default to sign with"


def test_the_webhook_of_a_storage_is_a_url_whose_secrets_are_not_shown(refused: Refuse) -> None:
    error = refused({**HOOKED, "BLOBFERRY_STORAGES__DEFAULT__WEBHOOK": "ftp://u:geheim@shop.example/x?y=geheim"})
    assert error.name == "storages.default.webhook"
    assert "geheim" not in str(error)
