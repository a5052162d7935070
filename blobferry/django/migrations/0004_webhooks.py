"""Webhooks among the deliveries."""

from django.db import migrations

from blobferry.django.schema import BringTo


class Migration(migrations.Migration):
    """Django's name for it."""

    dependencies = [("blobferry", "0003_spooled_sources")]  # noqa: RUF012 - Django's name, too
    operations = [BringTo("0011")]  # noqa: RUF012
