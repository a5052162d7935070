"""Object stores. They know keys, ETags and checksums; no paths, no jobs, no files."""
