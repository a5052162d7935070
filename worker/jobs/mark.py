"""The mark: the metadata entry by which a job recognises its own blob."""

from hashlib import sha256


def mark_of(job_id: str) -> str:
    """The job's mark: 32 hexadecimal digits. Hashed, since a job id may hold characters that a header may not."""
    return sha256(job_id.encode()).hexdigest()[:32]
