"""A job's life: claim it, run a slice of it under a lease, record how that ended."""
