"""Signed URLs: the rules, which worker and client share, and the client's signing in its own process.

botocore signs, and is imported when the first URL is signed: `pip install 'blobferry[signing]'`.
"""
