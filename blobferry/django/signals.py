"""Signals that ``manage.py blobferry_listen`` sends, in its own process."""

from django.dispatch import Signal

#: A job has succeeded, failed or been cancelled: at least once for each end. Sender: ``FerryJob``. Arguments: ``job``,
#: and the event, one by one: ``event_id``, ``sequence``, ``job_id``, ``state``, ``operation``, ``storage``, ``path``,
#: ``size``, ``labels``, ``error_code``, ``error_message``, ``finished_at``. A receiver takes ``**event`` as well.
job_finished = Signal()
