"""Where Blobferry meets Celery: what a message means, and what keeps the parent alive."""
