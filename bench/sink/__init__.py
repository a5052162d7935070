"""An S3 server that keeps everything but the bytes: ``python -m bench.sink``.

It answers HEAD, listings, copies and completions as S3 does, since it remembers sizes, ETags, metadata and uploads.
Bodies are dropped as they arrive, without a copy where the kernel can do that, and what it sends is generated. So it
costs less than any client of it, and two cores are enough to measure that client.

It checks no signature and no checksum; what a client declares is what HEAD shows. The ETag is the MD5 of a body of at
most 1 MiB; that of a larger one is drawn, and marked as no MD5 by its ending ``-1``.

Requests below ``/-/`` control it: see :mod:`bench.sink.controls`.
"""
