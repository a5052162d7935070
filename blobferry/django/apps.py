"""The app, as Django's registry knows it."""

from importlib import import_module

from django.apps import AppConfig


class BlobferryConfig(AppConfig):
    """``blobferry.django`` in INSTALLED_APPS."""

    name = "blobferry.django"
    label = "blobferry"
    verbose_name = "Blobferry"

    def ready(self) -> None:
        """Register the system checks."""
        import_module("blobferry.django.system_checks")
