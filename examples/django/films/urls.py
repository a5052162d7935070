"""The project's URLs."""

from django.urls import include, path

from films import views

urlpatterns = [
    path("", views.index, name="index"),
    path("progress", views.progress, name="progress"),
    path("files/", include("blobferry.django.urls")),
]
