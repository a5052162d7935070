"""The app, as Django's registry knows it."""

from django.apps import AppConfig


class BlobferryConfig(AppConfig):
    """``blobferry.django`` in INSTALLED_APPS."""

    name = "blobferry.django"
    label = "blobferry"
    verbose_name = "Blobferry"
