"""Sources that are removed after their job."""

from django.db import migrations

from blobferry.django.schema import BringTo


class Migration(migrations.Migration):
    """Django's name for it."""

    dependencies = [("blobferry", "0002_ends_are_told")]  # noqa: RUF012 - Django's name, too
    operations = [BringTo("0010")]  # noqa: RUF012
