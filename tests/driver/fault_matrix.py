"""The matrix of faults: every fault at every S3 call of an operation, and what is wrong with how each case ends.

Which calls an operation makes is found by letting it run once undisturbed, so the matrix follows the code.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from dev.proxies.s3_faults import Fault, Kind
from tests.driver.fault_operations import Operation
from tests.driver.proxied_pairs import Blob, ProxiedPair, ProxiedPairs
from worker.driver import Driver
from worker.errors import (
    BlobferryError,
    DeleteIncompleteError,
    PermissionDeniedError,
    SlowDownError,
    SourceNotAllowedError,
    SourceUnavailableError,
    StoreUnavailableError,
)

READS = frozenset({"get", "head", "get_tags"})  #: what the blob that is copied or kept is read with
LOOKS = frozenset({"head", "get_tags", "list", "list_parts"})


# --- faults ----------------------------------------------------------------------------------------------------------

#: Each with whether the server does its work first.
EFFECTS: dict[Kind, tuple[bool, ...]] = {
    "internal_error": (False, True),
    "slow_down": (False,),
    "access_denied": (False,),
    "error_in_200": (False, True),
    "hang_up": (False, True),
    "cut_request": (False,),
    "cut_answer": (False,),
    "stall": (False, True),
    "late": (False,),
}
KINDS = [(kind, effect) for kind, effects in EFFECTS.items() for effect in effects]
MANY = 30  #: cases of one operation
WAITS = frozenset({"stall", "late"})
ERRORS_IN_200 = frozenset({"copy", "copy_part", "complete_upload", "delete_batch"})

Mode = Literal[
    "once",  # to a client that tries twice: what may pass must not be seen
    "unrepeated",  # once, to a client that tries once: what is above it must cope
    "always",
]


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one call."""

    fault: Fault
    mode: Mode

    def __str__(self) -> str:
        effect = " after its effect" if self.fault.effect else ""
        return f"{self.fault.operation} #{self.fault.after + 1}: {self.fault.kind}{effect}, {self.mode}"

    @property
    def must_succeed(self) -> bool:
        """Whether nobody may notice."""
        where = (self.fault.operation, self.fault.kind)
        # Opened after all has ended; refused key by key, which is told key by key.
        is_told = where in {("create_upload", "late"), ("delete_batch", "error_in_200")}
        return self.mode == "once" and self.fault.kind != "access_denied" and not is_told

    @property
    def may_leave_an_upload(self) -> bool:
        """Whether nobody can abort what is left: no abort gets through, or it is opened after all has ended."""
        return (self.fault.operation, self.mode) == ("abort_upload", "always") or (
            (self.fault.kind, self.fault.operation) == ("late", "create_upload")
        )

    def is_right(self, error: Exception) -> bool:
        """Whether it is the error that a caller may expect."""
        operation, kind = self.fault.operation, self.fault.kind
        if operation == "delete_batch" and kind == "error_in_200":
            return isinstance(error, DeleteIncompleteError) and error.transient
        if kind == "access_denied":
            return isinstance(error, PermissionDeniedError) or (
                operation in READS and isinstance(error, SourceNotAllowedError)
            )
        if operation in READS and isinstance(error, SourceUnavailableError):
            return True
        if kind == "slow_down" and operation != "head":  # an answer to HEAD has no body to say so
            return isinstance(error, SlowDownError)
        return isinstance(error, StoreUnavailableError) and not (
            isinstance(error, SlowDownError) and kind != "slow_down"
        )


def cases(pair: ProxiedPair, operation: Operation) -> Iterator[Case]:
    """All faults at all calls. Of many parts the first and the last stand for the rest."""
    pair.proxy.inject()
    operation.run(*pair.drivers(begin(pair, operation), attempts=2))
    pair.proxy.wait_until_idle()
    exchanges = pair.proxy.exchanges()
    totals = Counter(exchange.call.operation for exchange in exchanges)
    numbers = Counter[str]()
    for exchange in exchanges:
        name = exchange.call.operation
        number, numbers[name] = numbers[name], numbers[name] + 1
        if "part" in name and 0 < number < totals[name] - 1:
            continue
        impossible = {
            "error_in_200": name not in ERRORS_IN_200,
            "cut_request": exchange.sent < 2,
            "cut_answer": exchange.answered < 2,
        }
        for kind, effect in KINDS:
            if impossible.get(kind):
                continue
            fault = Fault(name, kind, after=number, effect=effect)
            yield Case(fault, "once")
            if kind != "late":
                yield Case(fault, "always")
            if name not in LOOKS and kind not in WAITS:  # which are no different from a connection that ends
                yield Case(fault, "unrepeated")


# --- running them ----------------------------------------------------------------------------------------------------


def begin(pair: ProxiedPair, operation: Operation) -> str:
    root = f"r{next(pair.roots)}"
    pair.fill(root, {path: blob.content for path, blob in operation.before.items()})
    return root


def complaints(pairs: ProxiedPairs, operation: Operation, case: Case) -> list[str]:
    """What is wrong with how it ended."""
    with pairs.lend(hasty=case.fault.kind in WAITS) as pair:
        root = begin(pair, operation)
        # One client of the hasty ones is enough: whether it asks twice makes no difference to what is above it.
        drivers = pair.drivers(root, attempts=2 if case.mode == "once" or case.fault.kind in WAITS else 1)
        times = None if case.mode == "always" else 1
        answer, error = attempt(pair, operation, drivers, replace(case.fault, times=times))
        found = [] if pair.proxy.injected() else ["the fault was not met"]
        pair.proxy.inject()
        if case.fault.kind == "late":
            pair.proxy.wait_until_idle()
        found += outcome(operation, case, answer, error, pair.state(root, operation.sides))
        found += left_uploads(pair, root, operation, may_be=case.may_leave_an_upload)
        return [f"{case}: {one}" for one in found]


def attempt(
    pair: ProxiedPair, operation: Operation, drivers: tuple[Driver, Driver], *faults: Fault
) -> tuple[Any, Exception | None]:
    """What it answers or raises under these faults."""
    pair.proxy.inject(*faults)
    try:
        return operation.run(*drivers), None
    except Exception as error:
        return None, error


def left_uploads(pair: ProxiedPair, root: str, operation: Operation, *, may_be: bool) -> list[str]:
    """A complaint about unfinished uploads, unless there may be some."""
    left = pair.uploads(root, operation.sides)
    return [f"unfinished uploads are left at {left}"] if left and not may_be else []


def outcome(
    operation: Operation, case: Case, answer: Any, error: Exception | None, state: Mapping[str, str]
) -> Iterator[str]:
    before, *between = (in_words(blobs) for blobs in (operation.before, *operation.between))
    after = before if operation.after is None else in_words(operation.after)
    if error is None:
        if answer != operation.answer:
            yield f"answers {answer!r:.80}"
        if state != after:
            yield f"succeeds and leaves {state} instead of {after}"
        return
    if case.must_succeed:
        yield f"fails: {error!r}"
    if not isinstance(error, BlobferryError):
        yield f"raises what is not ours: {error!r}"
    elif not case.is_right(error):
        yield f"raises the wrong error: {error!r}"
    if case.fault.operation.startswith("delete"):
        # A delete that is not answered may have worked; and with a move, the destination is there already.
        if not after.items() <= state.items() <= (before.items() | after.items()):
            yield f"fails with {error!r} and leaves {state}"
        if "delete" not in str(error):
            yield f"does not say that the deleting failed: {error!r}"
    elif state not in (before, *between):
        yield f"fails with {error!r} and leaves {state} instead of {before}"


def in_words(blobs: Mapping[str, Blob]) -> Mapping[str, str]:
    return {path: str(blob) for path, blob in blobs.items()}


def check(pairs: ProxiedPairs, chosen: list[tuple[Operation, Case]]) -> None:
    def work(pair: tuple[Operation, Case]) -> list[str]:
        return [f"{pair[0].name}: {one}" for one in complaints(pairs, *pair)]

    with ThreadPoolExecutor(pairs.count) as executor:
        wrong = list(chain.from_iterable(executor.map(work, chosen)))
    assert chosen
    assert not wrong, "\n".join([f"{len(wrong)} complaints about {len(chosen)} cases", *wrong])


def all_cases(pairs: ProxiedPairs, operation: Operation, *, waits: bool) -> list[Case]:
    with pairs.lend() as pair:
        return [case for case in cases(pair, operation) if (case.fault.kind in WAITS) == waits]


def some(found: list[Case], turn: int) -> list[Case]:
    """Every kind of call with every kind of fault, at one of the calls and in one of the modes, by turns.

    Of an operation with many calls every sixth one: the operations are much alike.
    """
    groups: dict[tuple[str, str, bool], list[Case]] = {}
    for case in found:
        kind, effect = (case.fault.kind, case.fault.effect) if case.fault.kind not in WAITS else ("waits", False)
        groups.setdefault((case.fault.operation, kind, effect), []).append(case)
    chosen = [group[(number * 7 + turn) % len(group)] for number, group in enumerate(groups.values())]
    return chosen if len(chosen) < MANY else chosen[turn % 3 :: 6]
