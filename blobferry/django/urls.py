"""URLs for a project that has a FerryStorage: ``path("files/", include("blobferry.django.urls"))``."""

from django.urls import path

from blobferry.django.spooled_views import spooled_file

app_name = "blobferry"
urlpatterns = [path("spooled/<str:token>/<str:name>", spooled_file, name="spooled")]
