"""What people are shown of a job, in a browser or on a terminal: one implementation for all of them."""
