"""The fast lane: small jobs that have never run go through their steps together.

It handles no errors. A job that does not go smoothly leaves the lane with its error, and an ordinary run goes on with
it under the same token, from rows that look as if that run had come so far by itself.
"""
