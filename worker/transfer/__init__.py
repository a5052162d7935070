"""Bytes on their way: plan, parts, sources, publishing calls. It knows no jobs and no SQL."""
