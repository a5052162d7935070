"""How AsyncClient calls Client from an event loop: threads, transactions, watches."""
