"""What the project itself keeps."""

from django.db import models


class Video(models.Model):
    """A video, whose file is moved to the store by a job."""

    path = models.CharField(max_length=1024)
