"""Django's migrations of the tables of jobs."""
