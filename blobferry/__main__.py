"""``python -m blobferry``: the command, without installing the package."""

from blobferry.cli import main

main(prog_name="blobferry")
