"""The error tree: every class keeps its attributes on every way that an error travels."""

import copy
import inspect
import json
import pickle
import re
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend

import worker.errors
from blobferry import errors
from blobferry.errors import BlobferryError

# Arguments of the classes that take more than a message.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ConfigurationError": ("transfer.part_size", "needs at least 5 MiB"),
    "InvalidPathError": ("/ä", "s3", "registry"),
    "InvalidOffsetError": ("/a", -1, "s3"),
    "UnsupportedMethodError": ("PUT", "s3"),
    "PathNotFoundError": ("/a", "s3"),
    "JobNotFoundError": ("job-1",),
    "ConflictError": ("key-1", "job-1"),
    "TooLateError": ("job-1", "cancel", "it is completing", "wait for its end"),
    "DeleteIncompleteError": ("/a", [["/a/b", "AccessDenied"]], "s3"),
}


def tree(root: type[BlobferryError]) -> list[type[BlobferryError]]:
    children = [child for child in root.__subclasses__() if child.__module__ == root.__module__]
    return [root, *(found for child in children for found in tree(child))]


CLASSES = tree(BlobferryError)


def example(kind: type[BlobferryError]) -> BlobferryError:
    return kind(*ARGUMENTS.get(kind.__name__, ("what happened: ä ☃",)))


def through_pickle(error: BlobferryError, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(error, protocol))


def through_celery(error: BlobferryError) -> Any:
    app = Celery("test", set_as_current=False, broker="memory://", backend="cache+memory://")
    backend = Backend(app, serializer="json")
    return backend.exception_to_python(json.loads(json.dumps(backend.prepare_exception(error, serializer="json"))))


#: Every way that an error travels.
WAYS: dict[str, Callable[[BlobferryError], Any]] = {
    **{f"pickle {number}": partial(through_pickle, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "its arguments by name": lambda error: type(error)(**inspect.signature(type(error)).bind(*error.args).arguments),
    "Celery's JSON results": through_celery,
}
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


@every_class
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_error_survives_with_its_attributes(
    kind: type[BlobferryError], way: Callable[[BlobferryError], Any]
) -> None:
    error = example(kind)
    again = way(error)
    assert (type(again), again.args, vars(again), str(again)) == (kind, error.args, vars(error), str(error))
    assert {error: 1}[error] == 1  # it is hashable


@every_class
def test_an_error_says_what_it_was_given(kind: type[BlobferryError]) -> None:
    error = example(kind)
    for argument in filter(None, error.args):
        words = chain.from_iterable(argument) if isinstance(argument, list) else [argument]
        assert all(str(word) in str(error) for word in words)


@every_class
def test_the_workers_errors_are_the_very_same_classes(kind: type[BlobferryError]) -> None:
    assert getattr(worker.errors, kind.__name__) is kind
    assert kind.__name__ in worker.errors.__all__


def test_every_code_is_its_own_and_fits_its_column() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z][a-z_]{0,63}", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every class, at its depth, with its star."""
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error)( \*)?(?:\s|$)", errors.__doc__ or "", re.MULTILINE)
    shown = [(len(indent) // 4, name, bool(star)) for indent, name, star in drawn]

    def really(kind: type[BlobferryError], depth: int) -> list[tuple[int, str, bool]]:
        children = [row for child in kind.__subclasses__() if child in CLASSES for row in really(child, depth + 1)]
        return [(depth, kind.__name__, kind.transient), *children]

    assert sorted(shown) == sorted(really(BlobferryError, 0))


def test_a_path_that_breaks_the_rules_is_an_invalid_request_too() -> None:
    """So a caller who only asks whether the request was wrong need not know the kinds."""
    assert issubclass(errors.InvalidPathError, errors.InvalidRequestError)


def test_a_wrong_argument_is_what_python_calls_it() -> None:
    assert issubclass(errors.InvalidRequestError, ValueError)
    assert issubclass(errors.ArgumentTypeError, TypeError)
    assert not issubclass(errors.PathNotFoundError, ValueError)
