"""The URLs of the project in this process."""

from typing import Any

from django.contrib import admin
from django.db import connection
from django.http import HttpResponse
from django.urls import include, path

from blobferry.django import ferry


def store(request: Any, number: int) -> HttpResponse:
    """A view without a word of transactions. Number 0 fails in the end."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO app_video (id) VALUES (%s)", [number])
    ferry.delete(f"/videos/{number}")
    return HttpResponse(status=100 // number)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("files/", include("blobferry.django.urls")),
    path("videos/<int:number>/", store),
]
