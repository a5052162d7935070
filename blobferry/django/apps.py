"""The app, as Django's registry knows it."""

from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BlobferryConfig(AppConfig):
    """``blobferry.django`` in INSTALLED_APPS."""

    name = "blobferry.django"
    label = "blobferry"
    verbose_name = "Blobferry"

    def ready(self) -> None:
        """Register the system checks, and follow migrate and flush."""
        import_module("blobferry.django.system_checks")
        follow_project = import_module("blobferry.django.schema").follow_project
        post_migrate.connect(follow_project, sender=self)
