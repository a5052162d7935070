"""Every operation of the driver, with every fault at every S3 call that it makes: exact bytes, or the right error with
everything as before.

A choice of the cases runs always, all of them (about 2,500) with ``make test-long``.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, product

import pytest

from dev.proxies.s3_faults import Fault
from dev.services import S3Service, free_port
from tests.driver.fault_matrix import (
    KINDS,
    WAITS,
    Case,
    Mode,
    all_cases,
    attempt,
    begin,
    check,
    in_words,
    left_uploads,
    some,
)
from tests.driver.fault_operations import OPERATIONS, Operation
from tests.driver.proxied_pairs import LIMITS, PART, ProxiedPairs
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.transfer.upload.engine import Engine

pytestmark = pytest.mark.no_cover


@pytest.fixture(scope="module")
def pairs(moto_service: S3Service) -> Iterator[ProxiedPairs]:
    with ExitStack() as resources:
        yield ProxiedPairs(moto_service, resources, patient=6, hasty=10)


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@each_operation
def test_a_fault_is_survived_or_is_the_right_error(operation: Operation, pairs: ProxiedPairs) -> None:
    found = all_cases(pairs, operation, waits=False)
    check(pairs, [(operation, case) for case in some(found, OPERATIONS.index(operation))])


def test_an_answer_that_does_not_come_is_a_fault_like_any_other(pairs: ProxiedPairs) -> None:
    """All operations in one test: nearly all its time goes by with waiting, so they wait together."""
    turns = enumerate(OPERATIONS)
    found = [(one, case) for turn, one in turns for case in some(all_cases(pairs, one, waits=True), turn)]
    check(pairs, [(operation, case) for operation, case in found if case.mode == "once"])


@pytest.mark.long
@each_operation
def test_every_fault_at_every_call_in_every_mode(operation: Operation, pairs: ProxiedPairs) -> None:
    check(pairs, [(operation, case) for waits in (False, True) for case in all_cases(pairs, operation, waits=waits)])


# --- what is left is cleaned up --------------------------------------------------------------------------------------

CLEANING = ("abort_upload", "list_parts", "list_uploads")

#: What ends the operation, and the error that it must go on to raise whatever happens to the cleaning up.
ENDINGS: dict[str, tuple[Fault, type[Exception], tuple[str, ...]]] = {
    "complete refused": (Fault("complete_upload", "access_denied", times=None), PermissionDeniedError, CLEANING[:1]),
    # Its upload has no known id: it must first be found, and seen to be empty.
    "create unanswered": (Fault("create_upload", "hang_up", times=None, effect=True), StoreUnavailableError, CLEANING),
}


def complaints_about_cleaning(
    pairs: ProxiedPairs, operation: Operation, ending: str, call: str, fault: Fault
) -> list[str]:
    """What is wrong after the operation has ended so, with this fault while it cleans up."""
    fatal, expected, needed = ENDINGS[ending]
    with pairs.lend() as pair:
        root = begin(pair, operation)
        _, error = attempt(pair, operation, pair.drivers(root, attempts=2), fatal, fault)
        found = [] if (call, fault.kind) in pair.proxy.injected() else ["the fault was not met"]
        pair.proxy.inject()
        if not isinstance(error, expected):
            found.append(f"raises {error!r}")
        if (state := pair.state(root, operation.sides)) != in_words(operation.before):
            found.append(f"leaves {state}")
        may_be = call in needed and (fault.times is None or fault.kind == "access_denied")
        found += left_uploads(pair, root, operation, may_be=may_be)
    return [f"{fault}: {one}" for one in found]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["write, reader", "move in parts"])
def test_cleaning_up_survives_faults_and_hides_no_error(name: str, ending: str, pairs: ProxiedPairs) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    fatal = ENDINGS[ending][0]
    with pairs.lend() as pair:
        root = begin(pair, operation)
        attempt(pair, operation, pair.drivers(root, attempts=2), fatal)
        seen = [exchange.call.operation for exchange in pair.proxy.exchanges()]
        assert pair.uploads(root, operation.sides) == []
    cleaning = seen[len(seen) - seen[::-1].index(fatal.operation) :]
    chosen = [
        (call, Fault(call, kind, times, seen.count(call) - cleaning.count(call), effect))
        for call in CLEANING
        if call in cleaning
        for (kind, effect), times in product(KINDS, (1, None))
        if kind not in {*WAITS, "error_in_200", "cut_request"} and not (call == "abort_upload" and kind == "cut_answer")
    ]
    with ThreadPoolExecutor(pairs.count) as executor:
        found = executor.map(lambda one: complaints_about_cleaning(pairs, operation, ending, *one), chosen)
        wrong = list(chain.from_iterable(found))
    assert chosen
    assert not wrong, "\n".join(wrong)


# --- else ------------------------------------------------------------------------------------------------------------


def test_signing_a_url_sends_nothing(pairs: ProxiedPairs) -> None:
    with pairs.lend() as pair:
        pair.proxy.inject(Fault("", "hang_up", times=None))
        near, _ = pair.drivers("urls", attempts=1)
        assert near.url_for("/a").startswith(pair.proxy.endpoint)
        assert pair.proxy.exchanges() == []
        pair.proxy.inject()


@each_operation
def test_a_server_that_is_not_there_is_unavailable(operation: Operation) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with closing(Engine(part_size=PART, part_threads=2)) as engine, pytest.raises(StoreUnavailableError):
        operation.run(*(Driver(s3_store(nobody, side, limits=LIMITS), engine=engine) for side in ("near", "far")))


ON_SWIFT = {
    "put_content, over": [Fault("put", "hang_up", effect=True), Fault("put", "slow_down")],
    "write, source": [
        Fault("complete_upload", "hang_up", effect=True),
        Fault("complete_upload", "internal_error", effect=True),
        Fault("upload_part", "cut_request"),
        Fault("create_upload", "hang_up", effect=True),
    ],
    "append, reader": [Fault("complete_upload", "hang_up", effect=True), Fault("copy_part", "slow_down")],
    "move in parts": [Fault("complete_upload", "hang_up", effect=True), Fault("delete", "hang_up", effect=True)],
    "move small": [Fault("copy", "hang_up", effect=True), Fault("copy", "slow_down")],
    "read_stream": [Fault("get", "cut_answer"), Fault("get", "slow_down")],
    "delete a directory": [Fault("delete_batch", "hang_up", effect=True), Fault("list", "slow_down")],
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name != "write, source" else []) for name in ON_SWIFT]
)
def test_a_store_that_checks_signatures_copes_with_faults_too(name: str, swift_service: S3Service) -> None:
    modes: tuple[Mode, ...] = ("once", "unrepeated")
    (operation,) = (one for one in OPERATIONS if one.name == name)
    with ExitStack() as resources:
        chosen = [(operation, Case(fault, mode)) for fault, mode in product(ON_SWIFT[name], modes)]
        check(ProxiedPairs(swift_service, resources, patient=4, hasty=0), chosen)
