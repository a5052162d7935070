"""The mark: our metadata entry by which a job recognises its own blob."""

from hashlib import sha256


def mark_of(job_id: str) -> str:
    """The mark by which a job recognises its blob. A hash, since a job id may hold characters that no header can."""
    return sha256(job_id.encode()).hexdigest()[:32]
