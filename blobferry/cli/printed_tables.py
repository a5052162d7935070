"""Tables of lines, within the width of a terminal and unbroken in a pipe."""

from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blobferry.redaction import printable

_WIDEST: Final = 10_000  #: columns of a line in a pipe, at most


def new_table(*columns: str) -> Table:
    """A table with these columns; the first one holds what people copy."""
    table = Table(box=box.SIMPLE_HEAD if Console().is_terminal else None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")  # an id, which people copy
    return table


def add_line(table: Table, *words: str) -> None:
    """Add a line of any words."""
    table.add_row(*(Text(printable(word)) for word in words))  # Text, because a name may look like markup


def print_table(table: Table) -> None:
    """Print within the width of a terminal; in a pipe, as wide as needed, so that no name is broken."""
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=Console(width=_WIDEST).measure(table).maximum)
    with wide.capture() as lines:
        wide.print(table)
    for line in lines.get().splitlines():
        click.echo(line.rstrip())
