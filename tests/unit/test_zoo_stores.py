"""What goes through the proxy of a store of the zoo, and what is asked again there."""

import pytest

from tests.doubles import FaultyStore, HookedStore, RecordingStore, WrappedStore, blob, tiny_store
from tests.zoo_stores import PatientStore, SplitStore
from worker.driver import Driver
from worker.errors import PreconditionFailedError, SlowDownError, StoreUnavailableError
from worker.stores.blob_values import PutReceipt


def test_the_products_calls_go_through_the_proxy_and_the_tests_own_do_not() -> None:
    memory = tiny_store()
    proxied, direct = RecordingStore(memory), RecordingStore(memory)
    split = SplitStore(proxied, direct)
    # Doubles on the way are nobody, and what somebody else does in the middle of a call is the test's.
    hooked = HookedStore(split, before=lambda verb: split.put("other", b"x") if verb == "put" else None)
    Driver(WrappedStore(hooked)).put_content("/a", b"ours")
    assert blob(hooked, "a") == b"ours"
    assert [call.args[0] for call in proxied.named("put")] == ["a"]
    assert [call.args[0] for call in direct.named("put", "get")] == ["other", "a"]


@pytest.mark.parametrize("error", [StoreUnavailableError, SlowDownError])
def test_a_bare_verb_is_asked_again_for_a_moment(error: type[Exception]) -> None:
    memory = tiny_store()
    PatientStore(FaultyStore(memory, "put", times=2, error=lambda: error("busy"))).put("a", b"x")
    assert blob(memory, "a") == b"x"


def test_what_does_not_pass_comes_out_and_a_refusal_at_once() -> None:
    away = FaultyStore(tiny_store(), "head", times=99)
    with pytest.raises(StoreUnavailableError):
        PatientStore(FaultyStore(away, "head", fail_at=2, times=99, error=lambda: SlowDownError("busy"))).head("a")
    refusing = FaultyStore(tiny_store(), "put", error=lambda: PreconditionFailedError("there"))
    with pytest.raises(PreconditionFailedError):
        PatientStore(refusing).put("a", b"x")


def test_a_commit_call_answered_with_nothing_is_sent_again() -> None:
    class Forgetful(FaultyStore):
        """Answers the first put with nothing, and does nothing."""

        def put(self, key: str, body: bytes) -> PutReceipt:
            try:
                receipt: PutReceipt = self._do("put", (key, body), {})
            except StoreUnavailableError:
                return PutReceipt(None)
            return receipt

    memory = tiny_store()
    assert PatientStore(Forgetful(memory, "put")).put("a", b"x").etag is not None
    assert blob(memory, "a") == b"x"
