"""Deliveries in plain words for a terminal."""

from collections.abc import Sequence

import click

from blobferry.cli.printed_tables import add_line, new_table, print_table
from blobferry.cli.wording import local_time, short_time
from blobferry.values import Delivery


def delivery_line(delivery: Delivery) -> str:
    """One line about one delivery: what, to whom, and how far it has got."""
    return f"job.{delivery.job_state} to {delivery.kind} {delivery.receiver}: {_how_far(delivery)}"


def _how_far(delivery: Delivery) -> str:
    tries = f"{delivery.tries} " + ("try" if delivery.tries == 1 else "tries")
    again = f"; to send it again: blobferry redeliver {delivery.id}"
    match delivery.state:
        case "delivered":
            status = f" ({delivery.status})" if delivery.status else ""
            when = local_time(delivery.delivered_at) if delivery.delivered_at else ""
            return f"delivered {when}{status}".rstrip()
        case "gone":
            return f"the endpoint {delivery.error or 'is gone'}, and gets no more of this job{again}"
        case "given_up":
            return f"given up after {tries}: {delivery.error or 'not tried'}{again}"
        case _ if delivery.due_at and delivery.error:
            return f"{delivery.error}; {tries}, the next one at {short_time(delivery.due_at)}"
        case _:
            return "waits for its first try" if not delivery.tries else "is being sent"


def print_deliveries(found: Sequence[Delivery]) -> None:
    """Print a line for each delivery."""
    if not found:
        click.echo("no deliveries")
        return
    table = new_table("number", "job", "event", "receiver", "state", "tries", "answer", "ended")
    for each in found:
        answer = str(each.status or "") if each.error is None else each.error
        event = f"{each.sequence}. {each.job_state}"
        about = (str(each.id), each.job_id, event, each.receiver, each.state, str(each.tries), answer)
        add_line(table, *about, short_time(each.ended_at))
    print_table(table)
