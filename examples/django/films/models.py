"""What the project keeps of a film."""

from django.db import models

from blobferry.django.fields import FerryFileField


class Film(models.Model):
    """An uploaded film."""

    title = models.CharField(max_length=200)
    file = FerryFileField(upload_to="films")
    size = models.BigIntegerField(null=True)  #: in bytes, once it is stored

    class Meta:
        """The newest first."""

        ordering = ("-pk",)
