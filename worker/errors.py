"""The error tree, under the worker's own name. ``worker.errors.X is blobferry.errors.X``."""

from blobferry import errors as _errors
from blobferry.errors import *  # noqa: F403

__all__ = [name for name, value in vars(_errors).items() if isinstance(value, type)]
