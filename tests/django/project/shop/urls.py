"""The project's URLs."""

from django.urls import path
from shop.views import videos

urlpatterns = [path("videos/", videos)]
