"""Writes a blob to a file: aside, part by part, checked, then renamed into place."""
