"""The AsyncClient of an app: open while the app runs, and given to its endpoints."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from blobferry.async_client import AsyncClient
from blobferry.errors import ConfigurationError

_NAME: Final = "blobferry"  #: of the client, in the state of the lifespan and of the app


def ferry_lifespan(
    client: AsyncClient | None = None,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, AsyncClient]]]:
    """A lifespan for ``FastAPI(lifespan=…)`` or ``Starlette(lifespan=…)`` that closes the client in the end.

    An app with a lifespan of its own enters it there: ``async with ferry_lifespan()(app): yield``. Without a ``client``
    it is made by ``AsyncClient.from_env()`` when the app starts.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, AsyncClient]]:
        async with client or AsyncClient.from_env() as ferry:
            setattr(app.state, _NAME, ferry)
            yield {_NAME: ferry}  # which apps that are mounted in this one see too

    return lifespan


async def get_ferry(connection: HTTPConnection) -> AsyncClient:  # async: FastAPI calls others in threads
    """The client of the app, as a dependency. Raises ConfigurationError if its lifespan has not begun."""
    found = getattr(connection.state, _NAME, None) or getattr(connection.app.state, _NAME, None)
    if isinstance(found, AsyncClient):
        return found
    problem = "no client is open: give the app lifespan=ferry_lifespan(), and in tests use `with TestClient(app)`"
    raise ConfigurationError("blobferry.fastapi", problem)


#: The type of an endpoint's parameter that takes the client.
Ferry = Annotated[AsyncClient, Depends(get_ferry)]
