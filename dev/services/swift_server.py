"""OpenStack Swift with its S3 API: the store that checks signatures and keeps unfinished uploads over a kill -9.

Four processes (account, container, object, proxy) from the PyPI package ``swift``, one replica on one directory.
Ports and keys live in the directory, so that starting again on the same one gives the same endpoint and the same blobs.
"""

import base64
import http.client
import os
import pwd
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.process import ServiceError, ServiceProcess, free_port, running, work_directory
from dev.services.s3_server import MIN_PART_SIZE, REGION, S3Service

STORAGE_SERVERS = ("account", "container", "object")
PIPELINE = (
    "catch_errors cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink "
    "keymaster encryption proxy-logging proxy-server"
)

# One device, one replica, 2 ** 4 partitions. In a process of its own, for importing Swift brings eventlet along.
RINGS = """
import pathlib, sys
from swift.common.ring import RingBuilder
for name, port in (argument.split("=") for argument in sys.argv[2:]):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    address = {"ip": "127.0.0.1", "port": int(port)}
    address |= {"replication_ip": address["ip"], "replication_port": address["port"]}
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "device": "d1", "weight": 1.0, "meta": "", **address})
    builder.rebalance()
    builder.get_ring().save(str(pathlib.Path(sys.argv[1], name + ".ring.gz")))
"""


@contextmanager
def swift(
    port: int | None = None, *, directory: Path | None = None, min_part_size: int = MIN_PART_SIZE
) -> Iterator[S3Service]:
    """Swift as an S3 server. With a ``directory`` of the caller's, a later call on the same one finds what was stored.

    Args:
        port: Of the S3 endpoint; free or, in a known directory, the last one by default.
        directory: Kept. On a file system with extended attributes, which Swift cannot do without.
        min_part_size: Bytes that a part must have unless it is the last.
    """
    with work_directory("swift", directory) as work:
        _demand_extended_attributes(work)
        ports = _ports(work, port)
        _write_configuration(work, ports, min_part_size)
        _build_rings(work, ports)
        service = S3Service(
            endpoint=f"http://127.0.0.1:{ports['proxy']}",
            access_key="test:tester",
            secret_key="testing",
            processes=(
                *(_process(work, name, ports[name]) for name in STORAGE_SERVERS),
                ServiceProcess(
                    "swift-proxy-server",
                    _command("swift-proxy-server", work / "proxy-server.conf", "--verbose"),
                    log=work / "proxy-server.log",
                    answers=lambda: service.answers(),
                    port=ports["proxy"],
                ),
            ),
        )
        with running(service):
            yield service


def _process(work: Path, name: str, port: int) -> ServiceProcess:
    def answers() -> bool:
        # Any answer will do: it listens long before it has loaded.
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        finally:
            connection.close()

    return ServiceProcess(
        f"swift-{name}-server",
        _command(f"swift-{name}-server", work / f"{name}-server.conf", "--verbose"),
        log=work / f"{name}-server.log",
        answers=answers,
        port=port,
    )


def _command(script: str, *arguments: str | Path) -> list[str | Path]:
    """A script of the package by way of this interpreter: its first line may point at an environment since moved."""
    path = Path(sys.executable).parent / script
    if not path.exists():
        raise ServiceError(f"{script} is not installed beside this Python: pip install swift")
    return [sys.executable, path, *arguments]


def _demand_extended_attributes(work: Path) -> None:
    try:
        os.setxattr(work, "user.blobferry", b"1")
    except (OSError, AttributeError) as error:
        raise ServiceError(f"swift needs a file system with extended attributes; {work} has none: {error}") from error


def _ports(work: Path, port: int | None) -> dict[str, int]:
    known = work / "ports"
    if known.exists():
        names = dict(line.split() for line in known.read_text().splitlines())
        ports = {name: int(number) for name, number in names.items()}
    else:
        ports = {name: free_port() for name in (*STORAGE_SERVERS, "proxy")}
    if port is not None:
        ports["proxy"] = port
    known.write_text("".join(f"{name} {number}\n" for name, number in ports.items()))
    return ports


def _root_secret(work: Path) -> str:
    """The key under which everything in this directory is encrypted: made once."""
    path = work / "root_secret"
    if not path.exists():
        path.write_bytes(base64.b64encode(secrets.token_bytes(32)))
    return path.read_text()


def _write_configuration(work: Path, ports: dict[str, int], min_part_size: int) -> None:
    (work / "data" / "d1").mkdir(parents=True, exist_ok=True)
    (work / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = blob\nswift_hash_path_suffix = ferry\n"
        "[storage-policy:0]\nname = only\npolicy_type = replication\ndefault = yes\n"
        "[swift-constraints]\nmax_file_size = 5368709122\n"
    )
    user = pwd.getpwuid(os.getuid()).pw_name
    default = f"[DEFAULT]\nbind_ip = 127.0.0.1\nuser = {user}\nswift_dir = {work}\nworkers = 0\nlog_level = WARNING\n"
    default += "bind_timeout = 3\n"
    for name in STORAGE_SERVERS:
        (work / f"{name}-server.conf").write_text(
            f"{default}bind_port = {ports[name]}\ndevices = {work / 'data'}\n"
            "mount_check = false\ndisable_fallocate = true\nlog_requests = false\n"
            f"[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
            # A listing right after a write must show it; by default the object server waits one second and moves on.
            + ("container_update_timeout = 15\n" if name == "object" else "")
        )
    filters = {
        "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1",  # nothing listens there: no cache
        "s3api": (
            f"location = {REGION}\ns3_acl = false\nmax_upload_part_num = 10000\nmin_segment_size = {min_part_size}"
        ),
        "tempauth": "user_test_tester = testing .admin .reseller_admin",
        # Deleted bytes leave the disk with the request, not with a daemon that does not run here.
        "slo": "allow_async_delete = false\nmax_manifest_segments = 10000\nrate_limit_under_size = 0",
        "versioned_writes": "allow_object_versioning = true",
        "keymaster": f"encryption_root_secret = {_root_secret(work)}",
        "proxy-logging": "use = egg:swift#proxy_logging\naccess_log_level = CRITICAL",
    }
    sections = []
    for name in PIPELINE.removesuffix(" proxy-server").split():
        options = filters.get(name, "")
        use = "" if options.startswith("use =") else f"use = egg:swift#{name}\n"
        sections.append(f"[filter:{name}]\n{use}{options}\n")
    (work / "proxy-server.conf").write_text(
        f"{default}bind_port = {ports['proxy']}\n[pipeline:main]\npipeline = {PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        # With one replica, a server that was killed must be asked again as soon as it is back, not in a minute.
        "error_suppression_limit = 1000000000\n" + "".join(sections)
    )


def _build_rings(work: Path, ports: dict[str, int]) -> None:
    """The map from names to servers. It may be built anew at any time: no path on the disk depends on a port."""
    arguments = [f"{name}={ports[name]}" for name in STORAGE_SERVERS]
    done = subprocess.run(
        [sys.executable, "-c", RINGS, work, *arguments], cwd=work, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServiceError(f"swift cannot be started: its rings could not be built\n{done.stdout}{done.stderr}")
