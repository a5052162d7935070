"""The loads: what is done, how much of it, and who does it."""
