"""The sections of the settings, with their defaults. Sizes are in bytes, times in seconds."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from worker.units import GIB, MIB


class Section(BaseModel):
    """One section: frozen, without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def _absolute(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    for root in roots:
        absolute_path(root)
    return roots


def absolute_path(path: Path | None) -> Path | None:
    """The path, or None. Raises ValueError for one that depends on the current directory."""
    if path is not None and not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    return path


class SourcesSettings(Section):
    """``[sources]``: which files and addresses jobs may reach."""

    #: Directories below which ``file:`` URLs may lie. Empty: jobs may use no files.
    file_roots: Annotated[tuple[Path, ...], AfterValidator(_absolute)] = ()
    #: Directories below which a ``write_stream`` with ``delete_source`` may remove its file. Empty: spooled ones only.
    delete_roots: Annotated[tuple[Path, ...], AfterValidator(_absolute)] = ()
    http_allow_private: bool = False  #: whether ``http(s):`` sources may have addresses that are not public
    #: Networks and single addresses that ``http(s):`` sources may not have, even if they are public or allowed.
    http_refuse: tuple[IPv4Network | IPv6Network, ...] = ()
    http_refuse_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()  #: that such sources may not have
    http_max_size: int | None = Field(default=5 * GIB, ge=0)  #: bytes; None: as large as a blob may be
    http_max_redirects: int = Field(default=5, ge=0, le=20)  #: that are followed
    http_connect_seconds: float = Field(default=5, gt=0)  #: to reach a server
    http_read_seconds: float = Field(
        default=30, gt=0
    )  #: longest wait for a byte; all headers must arrive within twice that
    #: Holds the bytes of servers without range requests; should not be a tmpfs, which is memory.
    http_spool_directory: Annotated[Path, AfterValidator(absolute_path)] = Path("/var/tmp")
    #: Bytes per second that a source must send, over ``least_rate_seconds``; a slower one is retried later. 0: any.
    least_rate: int = Field(default=1024, ge=0)
    least_rate_seconds: float = Field(default=60, gt=0)  #: over which the rate is measured
    #: Certificate authorities to trust in addition to the system's.
    http_ca_file: Annotated[Path | None, AfterValidator(absolute_path)] = None


class BrokerSettings(Section):
    """``[broker]``: what the URL of the broker, or of the result backend, does not say."""

    master_name: str = ""  #: of the server that the sentinels of a ``sentinel://`` URL watch
    sentinel_username: str = ""
    sentinel_password: SecretStr = SecretStr("")
    tls: bool = False  #: for sentinels and their server; ``rediss://`` says it itself
    ca_file: str = ""  #: certificate authorities to trust instead of the system's
    cert_file: str = ""  #: of a client certificate
    key_file: str = ""


class TransferSettings(Section):
    """``[transfer]``: how bytes move. A child needs 120 MiB + part_threads × min(part_size, 64 MiB) of memory."""

    part_threads: int = Field(default=4, ge=1, le=64)  #: parts that one child sends at once
    part_size: int = Field(default=16 * MIB, ge=5 * MIB, le=5 * GIB)  #: larger where a store's parts would not hold it
    slice_seconds: float = Field(default=300, gt=0, le=3600)  #: after which a job gives its slot to the next one
    verify_seconds: float = Field(default=300, ge=0)  #: within which Stat must show the outcome
    batch_jobs: int = Field(default=32, ge=1, le=1000)  #: small jobs that one run takes together; 1: each by itself


class LeaseSettings(Section):
    """``[lease]``: how long a job stays with a worker that no longer renews its lease."""

    seconds: float = Field(default=30, ge=2, le=600)  #: after which another worker may take the job
    heartbeat_seconds: float = Field(default=10, gt=0)  #: between two renewals
    margin_seconds: float = Field(default=5, gt=0)  #: before the end of the lease, in which a run begins no new request

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.heartbeat_seconds + self.margin_seconds >= self.seconds:
            raise ValueError("heartbeat_seconds + margin_seconds must be less than seconds")
        return self


class RetrySettings(Section):
    """``[retry]``: what follows a transient error."""

    max_attempts: int = Field(default=8, ge=1)  #: runs in a row without progress that fail a job
    base_seconds: int = Field(default=2, ge=1)  #: before the first retry; doubled for each that follows
    max_seconds: int = Field(default=600, ge=1)  #: between two retries at most
    max_restarts: int = Field(default=3, ge=0)  #: how often the upload of one job may begin again from byte 0


class RetentionSettings(Section):
    """``[retention]``: how long uploads and rows are kept that no run needs."""

    failed_upload_seconds: float = Field(default=24 * 3600, ge=0)  #: of a job that ran out of retries
    paused_upload_seconds: float = Field(default=7 * 24 * 3600, ge=0)  #: of a paused job
    job_seconds: float = Field(default=30 * 24 * 3600, ge=0)  #: rows of finished jobs
    tombstone_seconds: float = Field(default=30 * 24 * 3600, ge=0)  #: ids of pruned jobs, from the pruning on
    spooled_seconds: float = Field(default=24 * 3600, ge=60)  #: uploads in ``spool_dir`` of which no job is submitted
    abort_recheck_seconds: float = Field(
        default=3600, ge=0
    )  #: until a second abort, as parts may arrive after the first


class SweepSettings(Section):
    """``[sweep]``: the caretaker."""

    interval_seconds: float = Field(default=5, gt=0)  #: between two sweeps
