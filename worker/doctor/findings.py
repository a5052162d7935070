"""The doctor's findings and its reports."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

from blobferry.redaction import printable

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one examination."""

    where: str  #: "database", "storage default", …
    what: str
    state: State  #: "missing": the store does not guarantee it, ``says`` names the consequence; "broken": must be fixed
    says: str = ""


def exit_status(findings: Sequence[Finding]) -> int:
    """1 if something is broken, else 0. A missing guarantee does not count."""
    return int(any(finding.state == "broken" for finding in findings))


def text_report(findings: Sequence[Finding]) -> str:
    """The findings for people: one line each, grouped by place."""
    lines = []
    for where, group in groupby(findings, lambda finding: finding.where):
        lines.append(printable(where))
        lines += [f"  {finding.state:<8} {_line(finding)}" for finding in group]
    counts = {state: sum(finding.state == state for finding in findings) for state in ("broken", "missing")}
    lines.append(f"{counts['broken']} broken, {counts['missing']} not guaranteed")
    return "\n".join(lines)


def json_report(findings: Sequence[Finding]) -> str:
    """The findings for programs: a JSON list of objects."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _line(finding: Finding) -> str:
    return printable(f"{finding.what}: {finding.says}" if finding.says else finding.what)
