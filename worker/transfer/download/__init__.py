"""A blob to a file: written aside, part by part, checked, renamed into place."""
