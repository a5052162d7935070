"""Bytes on their way: plan, parts, sources, commit calls. It knows no jobs and no SQL."""
