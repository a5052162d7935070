"""Chaos: real workers, real services, dozens of jobs and every harm there is, until the verdict. ``make chaos``."""
