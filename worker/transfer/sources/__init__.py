"""Where bytes come from: files, blobs, callers' readers, http servers."""
