"""What the project's visitors may do."""

from pathlib import Path
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from shop.models import Video

from blobferry.django import ferry


def videos(request: Any) -> HttpResponse:
    """Keep a video that has been uploaded."""
    with transaction.atomic():
        video = Video.objects.create(path=request.POST["path"])
        ferry.write_stream(video.path, Path("/srv/incoming/7.mp4"), labels={"video": str(video.pk)})
    return HttpResponse(status=201)
