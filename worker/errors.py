"""The error tree, under the name that the worker's own code uses."""

from blobferry import errors as _errors
from blobferry.errors import *  # noqa: F403  one tree, two doors: the very same objects

__all__ = [name for name, value in vars(_errors).items() if isinstance(value, type)]
