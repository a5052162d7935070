"""The tables of jobs, and the model that reads them."""

from django.db import migrations, models

from blobferry.django.schema import BringTo


class Migration(migrations.Migration):
    """Django's name for it."""

    initial = True
    operations = [  # noqa: RUF012 - Django's name, too
        BringTo("0008"),
        migrations.CreateModel(
            name="FerryJob",
            fields=[
                ("job_id", models.CharField(db_column="id", max_length=155, primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField(unique=True)),
                ("operation", models.CharField(max_length=32)),
                ("storage", models.CharField(max_length=64)),
                ("path", models.CharField(max_length=1024, null=True)),
                ("source", models.TextField(null=True)),
                ("dest", models.TextField(null=True)),
                ("labels", models.JSONField(null=True)),
                ("idempotency_key", models.CharField(max_length=255, null=True)),
                ("priority", models.IntegerField()),
                ("state", models.CharField(max_length=16)),
                ("phase", models.CharField(max_length=32, null=True)),
                ("size", models.BigIntegerField(null=True)),
                ("bytes_done", models.BigIntegerField()),
                ("bytes_sent", models.BigIntegerField()),
                ("attempt", models.BigIntegerField()),
                ("run_at", models.DateTimeField(null=True)),
                ("deadline", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("worker", models.CharField(max_length=255, null=True)),
                ("waits_for", models.CharField(max_length=155, null=True)),
                ("cancel_requested", models.BooleanField()),
                ("pause_requested", models.BooleanField()),
                ("error_code", models.CharField(max_length=64, null=True)),
                ("error_message", models.TextField(null=True)),
                ("result", models.JSONField(null=True)),
            ],
            options={
                "verbose_name": "job",
                "db_table": "blobferry_jobs",
                "ordering": ("-seq",),
                "managed": False,
                "default_permissions": ("view", "change"),
            },
        ),
    ]
