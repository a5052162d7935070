"""Signatures that name the options: ``help()`` would show ``**options: Unpack[WriteOptions]`` and no option at all."""

import inspect
from collections.abc import Iterator
from inspect import Parameter
from typing import Any, TypeVar, Unpack, get_args, get_origin

Class = TypeVar("Class", bound=type)


class _LeftOut:
    """The default of an option, which is that of the operation."""

    def __repr__(self) -> str:
        return "…"


def with_listed_options(owner: Class) -> Class:
    """Let the methods of a class that take ``**options`` show each of them, from the TypedDict that has them."""
    for method in vars(owner).values():
        function: Any = getattr(method, "__func__", method)  # behind a classmethod
        annotation = getattr(function, "__annotations__", {}).get("options")
        if get_origin(annotation) is Unpack:
            signature = inspect.signature(function)
            kept = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
            function.__signature__ = signature.replace(parameters=[*kept, *_options(annotation)])
    return owner


def _options(annotation: Any) -> Iterator[Parameter]:
    (named,) = get_args(annotation)
    for name, kind in named.__annotations__.items():
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=_LeftOut(), annotation=kind)
