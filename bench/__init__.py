"""``make bench``: Blobferry beside what people use today, in one run on one machine. See docs/performance.md."""
