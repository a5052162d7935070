"""Jobs under a path are found by an index."""

from django.db import migrations

from blobferry.django.schema import BringTo


class Migration(migrations.Migration):
    """Django's name for it."""

    dependencies = [("blobferry", "0004_webhooks")]  # noqa: RUF012 - Django's name, too
    operations = [BringTo("0012")]  # noqa: RUF012
