"""Variables that look like settings, and are set by a container platform for a service of our name."""

import re
from typing import Final

#: What Kubernetes sets in every pod for a service that is named blobferry or blobferry-something, as NAME=value.
#: Sources: Kubernetes, "Service", and pkg/kubelet/envvars/envvars.go; Docker, "Legacy container links"
_LINK: Final = re.compile(
    r"BLOBFERRY_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=.*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=.*"
    # Links of Docker, which also tell ranges of ports, and the variables and the name of the other container.
    r"|PORT(_\d+_(TCP|UDP|SCTP)(_PORT)?)?_(START|END)=.*|ENV_.*=.*|NAME=/.*/.*)"
)


def is_service_link(name: str, value: str) -> bool:
    """Whether the variable is such a one."""
    return _LINK.fullmatch(f"{name}={value}") is not None
