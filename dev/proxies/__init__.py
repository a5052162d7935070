"""What stands between a client and a service, and breaks what passes as a test tells it to."""
