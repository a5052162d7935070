"""A Celery app whose broker and result backend are those that it was given, whatever the environment says."""

from typing import Any

from celery import Celery


class ConfiguredApp(Celery):  # type: ignore[misc]
    """Celery, without the variables that it prefers to its configuration.

    CELERY_BROKER_URL, CELERY_BROKER_READ_URL, CELERY_BROKER_WRITE_URL, CELERY_RESULT_BACKEND and CELERY_LOADER are
    those of the app's own Celery, which may run in this process or in this container.
    """

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A connection for consumers, to the configured broker."""
        return super().connection_for_read(url or self.conf.get("broker_url"), **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """A connection for publishers, to the configured broker."""
        return super().connection_for_write(url or self.conf.get("broker_url"), **options)

    def _get_backend(self) -> Any:
        self.backend_cls = self.conf.get("result_backend")  # an attribute of the configuration reads the variable
        return super()._get_backend()

    def _get_default_loader(self) -> str:
        return self.loader_cls or "celery.loaders.app:AppLoader"
