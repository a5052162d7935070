"""``python -m blobferry``: the command, where the package is not installed."""

from blobferry.cli import main

main(prog_name="blobferry")
