"""What can be asked: one Celery task for each driver operation. No decisions are made here."""
