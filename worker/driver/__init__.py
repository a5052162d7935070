"""The driver: the nine storage operations on paths, with exact semantics, on top of a store."""

from worker.driver.driver import Driver

__all__ = ["Driver"]
