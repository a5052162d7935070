"""The Flask extension: one Client for each app."""

import json
import os
from typing import Final

from flask import Flask, current_app, has_app_context

from blobferry.client import Client
from blobferry.errors import ConfigurationError

_NAME: Final = "blobferry"  #: of the client, in ``app.extensions``
_PREFIX: Final = "BLOBFERRY_"


class FlaskFerry:
    """``FlaskFerry(app)``, or ``init_app(app)`` later. The client needs no closing; it may be made before a fork.

    ``client``: for all apps of this extension. Without it each app gets one from the variables of the environment and
    the BLOBFERRY_… entries of its own ``app.config``, which come first. There BLOBFERRY_STORAGES may be a dict.
    """

    def __init__(self, app: Flask | None = None, *, client: Client | None = None) -> None:
        self._client = client
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give the app its client. Raises ConfigurationError."""
        app.extensions[_NAME] = self._client or _configured(app)

    @property
    def client(self) -> Client:
        """The client of the current app. Raises ConfigurationError if there is none."""
        return client_of_current_app()


def client_of_current_app() -> Client:
    """The client of the current app. Raises ConfigurationError if there is none."""
    found = current_app.extensions.get(_NAME) if has_app_context() else None
    if isinstance(found, Client):
        return found
    what = "has no client; call FlaskFerry(app)" if has_app_context() else "is missing; use `with app.app_context()`"
    raise ConfigurationError("blobferry.flask", f"the current app {what}")


def _configured(app: Flask) -> Client:
    given = {name: value for name, value in app.config.items() if name.startswith(_PREFIX) and value is not None}
    ours = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in given.items()}
    return Client.from_env({**os.environ, **ours})
