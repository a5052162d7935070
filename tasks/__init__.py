"""One Celery task for each driver operation. Nothing is decided here."""
