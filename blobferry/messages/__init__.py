"""What travels through the broker: a nudge to look at a job, a read and its answer."""
