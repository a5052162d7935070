"""The project's URLs."""

from django.urls import include, path
from shop.views import videos

urlpatterns = [path("videos/", videos), path("files/", include("blobferry.django.urls"))]
