"""Runs the servers of the standard library beside the program."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseServer

POLL = 0.02  #: seconds between two looks at whether to end


@contextmanager
def served(server: BaseServer, *, before_close: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Serve within the block, in a thread of its own.

    ``before_close``: called once no new connection is taken, for a server whose threads wait for their clients.
    """
    thread = threading.Thread(target=server.serve_forever, args=(POLL,), name=type(server).__name__)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        before_close()
        server.server_close()
