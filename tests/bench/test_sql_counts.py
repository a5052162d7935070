"""The SQL of processes is counted in each of them, also in those that they fork."""

import os
import subprocess
import sys
from pathlib import Path

from bench.sql_counts import SqlCounts

#: Two transactions with a statement each; then a forked child with one that has two.
ASKS = """
import os
from sqlalchemy import create_engine, text
engine = create_engine("sqlite://")
for number in range(2):
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
if not (child := os.fork()):
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        connection.execute(text("SELECT 2"))
    os._exit(0)
os.waitpid(child, 0)
"""


def test_each_transaction_and_each_statement_of_each_process_is_counted(tmp_path: Path) -> None:
    counts = SqlCounts(tmp_path / "counts")
    for number in (1, 2):
        variables = counts.variables(str(Path(__file__).parents[2]))
        subprocess.run([sys.executable, "-c", ASKS], env=os.environ | variables, check=True)
        assert counts.read() == {"transactions": 3 * number, "statements": 4 * number}
