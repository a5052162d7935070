"""Write blobferry/async_client.py from the signatures of Client: `make async-client`.

Its methods are text, not made at run time, so that mypy, editors and help() know their arguments; and they are written
by a program, so that none can be forgotten or differ: a test fails unless the file is what this program writes.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = ROOT / "blobferry" / "client.py"
TARGET: Final = ROOT / "blobferry" / "async_client.py"

#: Methods that AsyncCalls has itself.
OWN: Final = ("watch", "wait", "listen", "handle")
#: Methods that wait for nothing, and are called as they are.
PLAIN: Final = ("on",)
#: Methods that change nothing in the database. Any other is taken for one that may.
READS: Final = ("get", "get_many", "jobs", "uploads", "attempts", "situation", "deliveries", "finished")
#: Methods that the header has.
HEADER_HAS: Final = ("from_env", "close")
RENAMED: Final = {
    "Transaction": "AsyncTransaction",
    "JobOptions": "AsyncJobOptions",
    "WriteOptions": "AsyncWriteOptions",
    "StreamOptions": "AsyncStreamOptions",
    "Iterator": "AsyncIterator",
}

HEADER: Final = '''\
"""AsyncClient: Client for asyncio. Do not edit: `make async-client` writes it from the signatures of Client."""

{imports}
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from blobferry.aio.async_calls import AsyncCalls, own_database
from blobferry.aio.async_options import AsyncJobOptions, AsyncStreamOptions, AsyncWriteOptions
from blobferry.client import {constants}
from blobferry.sql.async_transactions import AsyncTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


{decorators}class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """Client for asyncio: its methods, awaited. The event loop never waits for the database, the broker or a worker.

    ``session`` takes an AsyncSession or an AsyncConnection. ``engine`` may be an AsyncEngine: Blobferry opens
    connections of its own to that database, by psycopg 3 or SQLite's own driver. All watches share one query.

    What was cancelled before a thread had begun it has not happened. A submit, or a change of a job, that had begun is
    finished before its await ends with CancelledError, whose note names the job; with an ``idempotency_key`` it is safe
    to repeat. In a ``session`` it is part of that transaction.
    """

    def __init__({init}) -> None:
        self._calls = AsyncCalls(Client(**own_database(database_url, engine), {passed}))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """{from_env_says}"""
        client = cls.__new__(cls)
        client._calls = AsyncCalls(Client.from_env() if environ is None else Client.from_env(environ))
        return client

    @property
    def client(self) -> Client:
        """The Client behind this one, for use in threads."""
        return self._calls.client

    async def close(self) -> None:
        """Finish what has begun, then close the connections that this client opened. It may be used again."""
        await self._calls.close()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

{methods}
'''


def text() -> str:
    """What the file must hold."""
    module = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (client,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Client")
    methods = {node.name: node for node in client.body if isinstance(node, ast.FunctionDef)}
    init, from_env = methods["__init__"], methods["from_env"]
    written = HEADER.format(
        imports="\n".join(ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)),
        decorators="".join(f"@{ast.unparse(each)}\n" for each in client.decorator_list),
        constants=", ".join(["Client", *_constants(module)]),
        init=ast.unparse(init.args).replace("engine: Engine | None", 'engine: "Engine | AsyncEngine | None"'),
        passed=", ".join(_passed(init.args, but=("database_url", "engine"))),
        from_env_says=ast.get_docstring(from_env),
        methods="\n\n".join(
            _method(node) for name, node in methods.items() if name not in HEADER_HAS and name[0] != "_"
        ),
    )
    return _ruff(_ruff(written, "check", "--select=I,F401", "--fix-only", "--quiet"), "format")


def _constants(module: ast.Module) -> list[str]:
    named = (node.target for node in module.body if isinstance(node, ast.AnnAssign))
    return [target.id for target in named if isinstance(target, ast.Name) and target.id[0] != "_"]


def _method(method: ast.FunctionDef) -> str:
    """The method of AsyncClient, which calls that of Client."""
    returns, arguments = ast.unparse(method.returns or ast.Constant(None)), ast.unparse(method.args)
    passed = ", ".join(_passed(method.args))
    call = f"self._calls.{_kind(method, arguments)}(self._calls.client.{method.name}, {passed})"
    if "session" in arguments or "Options" in arguments:
        call = f"self._calls.submit(Client.{method.name}, {passed})"
    if method.name in OWN:
        call = f"self._calls.{method.name}({passed})"
    if method.name in PLAIN:
        call = f"self._calls.client.{method.name}({passed})"
    is_plain = method.name in PLAIN or returns.startswith("Iterator")
    signature = f"{'' if is_plain else 'async '}def {method.name}({arguments}) -> {returns}:"
    for name, other in RENAMED.items():
        signature = re.sub(rf"\b{name}\b", other, signature)
    lines = (ast.get_docstring(method) or "").splitlines()
    says = [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']
    body = [*says, f"return {'' if is_plain else 'await '}{call}"]
    return "\n".join([f"    {signature}", *(f"        {line}".rstrip() for line in body)]) + "\n"


def _kind(method: ast.FunctionDef, arguments: str) -> str:
    if "READ_TIMEOUT" in arguments:
        return "ask"
    return "read" if method.name in READS else "change"


def _passed(arguments: ast.arguments, but: tuple[str, ...] = ("self", "cls")) -> list[str]:
    """The arguments as a call passes them on."""
    positional = [each.arg for each in arguments.args if each.arg not in (*but, "self", "cls")]
    if arguments.vararg:
        positional.append(f"*{arguments.vararg.arg}")
    named = [f"{each.arg}={each.arg}" for each in arguments.kwonlyargs if each.arg not in but]
    return positional + named + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])


def _ruff(source: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, f"--stdin-filename={TARGET}", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
