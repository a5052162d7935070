"""Moves bytes: plan, parts, sources, uploads, downloads. Knows no jobs and no SQL."""
