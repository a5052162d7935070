"""The dependencies of blobferry-worker: the client of the same version, and the group ``worker`` of the checkout."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class WorkerDependencies(MetadataHookInterface):
    """Written down once: in the checkout's pyproject.toml, from which the lock is made as well."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies."""
        checkout = Path(self.root).parents[1]
        groups = tomllib.loads((checkout / "pyproject.toml").read_text())["dependency-groups"]
        metadata["dependencies"] = [f"blobferry=={metadata['version']}", *groups["worker"]]
