"""Blobferry in Django: an app for INSTALLED_APPS. ``ferry`` writes jobs into the transaction that is open.

``from blobferry.django import ferry`` asks for no settings and no database; its first call does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blobferry.django.ferries import Ferry, ferry

__all__ = ["Ferry", "ferry"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Late: Django imports this package to find the app, before its settings may be used.
    if name in __all__:
        return getattr(import_module("blobferry.django.ferries"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
