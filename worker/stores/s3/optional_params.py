"""Optional parameters of requests: sent until the store refuses them, and then left out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from worker.errors import InvalidStoreRequestError, NotSupportedError, StoreError
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.s3.request_params import Params
from worker.stores.s3.s3_errors import code_of

Answer = TypeVar("Answer")
Send = Callable[[Params], Answer]
"""Sends a request with these parameters besides those that it always has."""

#: HTTP 400, 405, 411 and 501, as far as their code says nothing else. Such a request had no effect.
_MAY_BE_ABOUT_A_PARAMETER: Final = (NotSupportedError, InvalidStoreRequestError)
#: These say that a value is wrong, so the store knows the parameter. Source: S3 API reference, "Error responses".
_ABOUT_A_VALUE: Final = frozenset(
    {
        "EncryptionTypeMismatch",
        "EntityTooLarge",
        "InvalidBucketName",
        "InvalidLocationConstraint",
        "InvalidStorageClass",
        "InvalidTag",
        "KeyTooLongError",
        "MaxMessageLengthExceeded",
        "MetadataTooLarge",
    }
)


class OptionalParams:
    """Those of one store."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        #: Refusals that no parameter of ours explains: verb, S3's code, has a condition, what was offered.
        self._about_others: set[tuple[str, str, bool, frozenset[Capability]]] = set()

    def send(
        self,
        verb: str,
        send: Send[Answer],
        optional: Mapping[Capability, Params],
        *,
        is_conditional: bool = False,
    ) -> Answer:
        """Send a request with those of the optional parameters that the store is not known to lack.

        If it is refused, and is accepted without some of them, the store lacks these from now on. Every attempt is one
        on the wire of its own. Raises the first refusal if no other attempt is accepted or refused for another reason.
        ``is_conditional``: the request has a condition, which may be what is refused.
        """
        offered = {name: params for name, params in optional.items() if params and self._capabilities.has(name)}
        try:
            return send(_merged(offered))
        except _MAY_BE_ABOUT_A_PARAMETER as refusal:
            kind = (verb, code_of(refusal), is_conditional, frozenset(offered))
            if not offered or _is_about_a_value(refusal) or kind in self._about_others:
                raise
            try:
                return self._send_without(send, offered, refusal)
            except _MAY_BE_ABOUT_A_PARAMETER as last:
                if last is refusal:
                    self._about_others.add(kind)
                raise

    def _send_without(self, send: Send[Answer], offered: Mapping[Capability, Params], refusal: StoreError) -> Answer:
        for suspects in _suspects(offered):
            try:
                answer = send(_merged({name: params for name, params in offered.items() if name not in suspects}))
            except _MAY_BE_ABOUT_A_PARAMETER as another:
                if code_of(another) == code_of(refusal):
                    continue
                self._capabilities.miss(*suspects, reason=str(refusal))
                raise  # that one was about these; what it says now is about the rest, such as a condition
            self._capabilities.miss(*suspects, reason=str(refusal))
            return answer
        raise refusal


def _is_about_a_value(refusal: StoreError) -> bool:
    return code_of(refusal) in _ABOUT_A_VALUE or code_of(refusal).startswith("KMS.")


def _suspects(offered: Mapping[Capability, Params]) -> Iterator[tuple[Capability, ...]]:
    """Each alone, then all."""
    yield from ((name,) for name in offered)
    if len(offered) > 1:
        yield tuple(offered)


def _merged(offered: Mapping[Capability, Params]) -> Params:
    return {name: value for params in offered.values() for name, value in params.items()}
