"""The check of each value that a request may carry."""
