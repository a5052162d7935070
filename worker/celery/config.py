"""Celery's configuration, derived from the worker's settings. The reason for each value stands beside it."""

from typing import Any, Final

from blobferry.contract import JOBS_QUEUE
from blobferry.messages.broker_address import broker_address
from blobferry.messages.job_messages import BROKER_TIMEOUTS, PUBLISH_RETRY
from worker.settings import Settings

DAY: Final = 24 * 3600


def celery_config(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a worker with these settings."""
    broker = broker_address(settings.broker_url.get_secret_value(), settings.broker_options)
    backend = broker
    if settings.result_backend:
        backend = broker_address(settings.result_backend.get_secret_value(), settings.broker_options)
    slice_seconds = settings.transfer.slice_seconds
    return {
        "broker_url": broker.url,
        "broker_use_ssl": broker.tls,
        "result_backend": backend.url,
        "redis_backend_use_ssl": backend.tls,
        "include": ["tasks.transfers", "tasks.reads"],
        # No pickle anywhere.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # Queues of our own, so that an app that shares the broker loses no message to us.
        "task_default_queue": JOBS_QUEUE,
        "task_queues": None,
        "task_create_missing_queues": True,
        # The next task of a chain or a link is the app's, unless it is one of ours.
        "task_routes": ["worker.celery.routes:route"],
        # One message per process, redelivered if the worker dies.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_concurrency": settings.concurrency,
        # The job's row decides what a lost child means. Celery must report RETRY, not FAILURE; its second message is
        # harmless. While the broker takes none, a job's own goes back to its queue: see JobTask.
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Slices are far shorter than the visibility timeout, so only messages that are really lost are redelivered.
        "broker_transport_options": {
            **BROKER_TIMEOUTS,
            **broker.transport_options,
            "visibility_timeout": max(1800, int(4 * slice_seconds)),
            "unacked_restore_interval": 15,
            "unacked_restore_throttle": 1,
            "health_check_interval": 20,
        },
        "result_backend_transport_options": {
            **backend.transport_options,
            "visibility_timeout": max(1800, int(4 * slice_seconds)),
            # An error answer, READONLY during a failover for example, is over soon, as an absence is.
            "additional_connection_errors": ("redis.exceptions.ResponseError",),
        },
        "redis_socket_timeout": BROKER_TIMEOUTS["socket_timeout"],
        "redis_socket_connect_timeout": BROKER_TIMEOUTS["socket_connect_timeout"],
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 20,
        # While the broker is away, a child tries for half a minute to store its result.
        "redis_retry_on_timeout": True,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 30,
        "result_backend_max_sleep_between_retries_ms": 1000,
        # The broker may start later than the worker, and may go away for any time.
        "worker_consumer": "worker.celery.consumer:ReconnectingConsumer",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": PUBLISH_RETRY,
        # Children are replaced between two slices, so that leaked memory is returned.
        "worker_max_tasks_per_child": settings.max_tasks_per_child,
        "worker_max_memory_per_child": settings.max_child_memory // 1024,
        # After SIGQUIT or a second SIGTERM, runs have this many seconds to hand over.
        "worker_soft_shutdown_timeout": settings.drain_seconds,
        # Results serve chains, chords and Flower only; the row is the truth.
        "result_expires": DAY,
        "result_extended": True,
        # STARTED would overwrite FAILURE when a second message of a job arrives. Flower learns it from events anyway.
        "task_track_started": False,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_hijack_root_logger": False,
        "enable_utc": True,
    }
