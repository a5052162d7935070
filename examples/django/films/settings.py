"""The project's settings. It shares the variables of its workers."""

import os

from sqlalchemy import make_url

_database = make_url(os.environ["BLOBFERRY_DATABASE_URL"])
_is_sqlite = _database.get_backend_name() == "sqlite"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3" if _is_sqlite else "django.db.backends.postgresql",
        "NAME": _database.database,
        "USER": _database.username or "",
        "PASSWORD": _database.password or "",
        "HOST": _database.host or _database.query.get("host", ""),
        "PORT": _database.port or "",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"} if _is_sqlite else {},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["blobferry.django", "films.apps.FilmsConfig"]
BLOBFERRY = {"BROKER_URL": os.environ["BLOBFERRY_BROKER_URL"], "SPOOL_DIR": os.environ["BLOBFERRY_SPOOL_DIR"]}
STORAGES = {
    "default": {"BACKEND": "blobferry.django.storage.FerryStorage", "OPTIONS": {"location": "/media"}},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
FILE_UPLOAD_TEMP_DIR = os.environ["BLOBFERRY_SPOOL_DIR"]  # so that a large upload is renamed, not copied

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "films.urls"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.csrf"]},
    }
]
