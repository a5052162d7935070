"""Migrations of the app's own tables."""
