"""The rows of jobs, as the client writes and reads them."""
