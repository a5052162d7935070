"""Settings of the project; a test says where its database and broker are."""

import json
import os

SECRET_KEY = "of tests"
DATABASES = {"default": json.loads(os.environ["PROJECT_DATABASE"])}
BLOBFERRY = {"BROKER_URL": os.environ["PROJECT_BROKER_URL"]}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "blobferry.django", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
