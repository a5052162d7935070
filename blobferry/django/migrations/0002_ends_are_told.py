"""What is told at the end of jobs."""

from django.db import migrations

from blobferry.django.schema import BringTo


class Migration(migrations.Migration):
    """Django's name for it."""

    dependencies = [("blobferry", "0001_initial")]  # noqa: RUF012 - Django's name, too
    operations = [BringTo("0009")]  # noqa: RUF012
