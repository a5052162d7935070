"""Make the table of films."""

from typing import ClassVar

from django.db import migrations, models

import blobferry.django.fields


class Migration(migrations.Migration):
    """What ``manage.py makemigrations`` wrote."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="Film",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=200)),
                ("file", blobferry.django.fields.FerryFileField(upload_to="films")),
                ("size", models.BigIntegerField(null=True)),
            ],
            options={"ordering": ["-pk"]},
        ),
    ]
