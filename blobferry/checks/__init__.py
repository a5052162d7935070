"""One check for each value that a request may carry."""
