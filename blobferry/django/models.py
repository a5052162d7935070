"""Jobs as Django's ORM reads them: for the admin, and for queries of the app's own. They are written by ``ferry``."""

from django.db import models

from blobferry.contract import FINAL_STATES, OPERATIONS, JobState


class FerryJob(models.Model):
    """A row of ``blobferry_jobs``, without the columns that are the workers' own business."""

    job_id = models.CharField("id", max_length=155, primary_key=True, db_column="id")
    seq = models.BigIntegerField("number", unique=True, help_text="The order of submission.")
    operation = models.CharField(max_length=32, choices=[(name, name) for name in OPERATIONS])
    storage = models.CharField(max_length=64)
    path = models.CharField(max_length=1024, null=True)
    source = models.TextField(null=True, help_text="The URL of the source, without secrets, or the path that is moved.")
    dest = models.TextField("destination", null=True)
    labels = models.JSONField(null=True)
    idempotency_key = models.CharField(max_length=255, null=True)
    priority = models.IntegerField()
    state = models.CharField(max_length=16, choices=[(str(state), str(state)) for state in JobState])
    phase = models.CharField(max_length=32, null=True)
    size = models.BigIntegerField("bytes", null=True)
    bytes_done = models.BigIntegerField()
    bytes_sent = models.BigIntegerField()
    attempt = models.BigIntegerField()
    run_at = models.DateTimeField("not before", null=True)
    deadline = models.DateTimeField(null=True)
    created_at = models.DateTimeField("submitted")
    updated_at = models.DateTimeField("updated")
    started_at = models.DateTimeField("started", null=True)
    finished_at = models.DateTimeField("finished", null=True)
    worker = models.CharField(max_length=255, null=True)
    waits_for = models.CharField(max_length=155, null=True, help_text="The job that comes before this one at a path.")
    cancel_requested = models.BooleanField()
    pause_requested = models.BooleanField()
    error_code = models.CharField(max_length=64, null=True)
    error_message = models.TextField("error", null=True)
    result = models.JSONField(null=True)

    class Meta:
        """The table is made by ``BringTo``."""

        managed = False
        db_table = "blobferry_jobs"
        ordering = ("-seq",)
        verbose_name = "job"
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return f"{self.operation} {self.path} ({self.job_id})"

    @property
    def is_final(self) -> bool:
        """True once the job has succeeded, failed or been cancelled."""
        return self.state in FINAL_STATES
