"""Without a framework its package says what to install, and the client needs none of them."""

import os

import pytest

from tests.client.conftest import run_python

MISSING = """
    import sys
    sys.modules[{missing!r}] = None  # as if it were not installed
    import blobferry
    assert blobferry.AsyncClient and blobferry.Client
    try:
        import blobferry.{framework}
    except ImportError as error:
        assert "pip install 'blobferry[{framework}]'" in str(error), error
    else:
        raise AssertionError("it was imported all the same")
"""


@pytest.mark.parametrize(
    ("framework", "missing"), [("fastapi", "fastapi"), ("fastapi", "fastapi.sse"), ("flask", "flask")]
)
def test_the_error_names_what_to_install(framework: str, missing: str) -> None:
    run_python(MISSING.format(framework=framework, missing=missing), dict(os.environ))


def test_the_client_loads_no_framework() -> None:
    run_python(
        """
        import sys
        import blobferry
        assert blobferry.AsyncClient and blobferry.Client
        loaded = {"fastapi", "flask", "starlette", "pydantic", "sqlalchemy.ext.asyncio"} & set(sys.modules)
        assert not loaded, loaded
        """,
        dict(os.environ),
    )
