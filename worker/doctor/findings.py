"""What the doctor found, and how it is told."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

from blobferry.redaction import printable

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    where: str  #: "database", "storage default", …
    what: str
    state: State  #: "missing": a store does not guarantee it, ``says`` what follows; "broken": has to be mended
    says: str = ""


def exit_status(findings: Sequence[Finding]) -> int:
    """1 if something has to be mended. A guarantee that a store does not give is none of that."""
    return int(any(finding.state == "broken" for finding in findings))


def told(findings: Sequence[Finding]) -> str:
    """The findings for people: a line for each, below where it is."""
    lines = []
    for where, group in groupby(findings, lambda finding: finding.where):
        lines.append(printable(where))
        lines += [f"  {finding.state:<8} {_told(finding)}" for finding in group]
    counts = {state: sum(finding.state == state for finding in findings) for state in ("broken", "missing")}
    lines.append(f"{counts['broken']} broken, {counts['missing']} not guaranteed")
    return "\n".join(lines)


def told_as_json(findings: Sequence[Finding]) -> str:
    """The findings for programs: a list of objects."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _told(finding: Finding) -> str:
    return printable(f"{finding.what}: {finding.says}" if finding.says else finding.what)
