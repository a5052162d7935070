"""The packages beside this one. Their names are common, so an app's own may come first on the path."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent.parent


def refuse_strangers() -> None:
    """Raise ImportError unless ``tasks`` and ``models`` are those that lie beside ``worker``."""
    for name in ("tasks", "models"):
        spec = find_spec(name)
        found = None if spec is None else spec.origin or ", ".join(spec.submodule_search_locations or ())
        if found is None or Path(found).resolve() != HERE / name / "__init__.py":
            raise ImportError(
                f"the package {name} is {found or 'missing'}, not the one beside {HERE / 'worker'}: Blobferry's worker "
                f"needs an environment of its own, and starts in no folder that has a package {name}. Install it by "
                "pipx install blobferry-worker, uv tool install blobferry-worker, or into a venv"
            )
