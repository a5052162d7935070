"""The section ``[webhooks]``, and the form of its secrets."""

from base64 import b64decode
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from blobferry.checks.arguments import check_secret_name
from worker.settings.sections import Section, absolute_path

_PREFIX: Final = "whsec_"
_BYTES: Final = range(24, 65)  #: of a secret. Source: Standard Webhooks, "Signature scheme"
_NEEDS: Final = f"'{_PREFIX}' and {_BYTES[0]} to {_BYTES[-1]} random bytes in base64"
_MAKE: Final = 'make one with `echo "whsec_$(openssl rand -base64 32)"`'

Secrets = tuple[SecretStr, ...]


def _listed(secrets: Any) -> Any:
    """One secret as a list of one; in a variable several are separated by commas."""
    if not isinstance(secrets, Mapping):
        return secrets
    return {
        name: [part.strip() for part in found.split(",")] if isinstance(found, str) else found
        for name, found in secrets.items()
    }


def _well_formed(secrets: dict[str, Secrets]) -> dict[str, Secrets]:
    for name, found in secrets.items():
        check_secret_name("a name", name)
        if not found:
            raise ValueError(f"{name}: needs a secret, {_NEEDS}")
        for number, secret in enumerate(found, start=1):
            if not _is_well_formed(secret.get_secret_value()):
                raise ValueError(f"{name}: secret {number} of {len(found)} is not {_NEEDS}; {_MAKE}")
    return secrets


def _is_well_formed(secret: str) -> bool:
    try:
        return secret.startswith(_PREFIX) and len(b64decode(secret.removeprefix(_PREFIX), validate=True)) in _BYTES
    except ValueError:
        return False


class WebhooksSettings(Section):
    """``[webhooks]``: who signs webhooks, where they may go, and how long they are tried."""

    #: By name one secret, ``whsec_…``, or a list of several, which all sign while they are rotated. The one that is
    #: named ``default`` signs where nobody names any. Without secrets this worker sends no webhooks.
    secrets: Annotated[dict[str, Secrets], BeforeValidator(_listed), AfterValidator(_well_formed)] = Field(
        default_factory=dict
    )
    allow_http: bool = False  #: whether URLs may be ``http:``, which hides nothing from whoever is on the way
    allow_private: bool = False  #: whether they may have addresses that are not public
    #: Networks and single addresses that they may not have, even if they are public or allowed.
    refuse: tuple[IPv4Network | IPv6Network, ...] = ()
    refuse_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()  #: that they may not have
    #: Certificate authorities to trust in addition to the system's.
    ca_file: Annotated[Path | None, AfterValidator(absolute_path)] = None
    connect_seconds: float = Field(default=5, gt=0, le=60)  #: to reach an endpoint
    read_seconds: float = Field(default=10, gt=0, le=60)  #: longest wait for a byte of its answer
    total_seconds: float = Field(default=20, gt=0, le=300)  #: for a whole try
    threads: int = Field(default=16, ge=1, le=256)  #: posts that one worker sends at a time; a quarter to one host
    give_up_seconds: float = Field(default=24 * 3600, ge=0)  #: from the end of the job, or a redelivery, on
