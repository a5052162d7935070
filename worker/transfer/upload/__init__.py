"""Writes a blob: part by part, checkpointed, made visible by one conditional call."""
