"""The Celery side: tasks and what their messages mean, the configuration, and fixes that keep the parent alive."""
