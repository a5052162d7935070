"""Sources of bytes: files, blobs, readers of callers, http servers."""
