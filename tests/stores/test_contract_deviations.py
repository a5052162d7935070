"""The table of deviations and the suite's tests agree."""

import re
from pathlib import Path

from tests.stores.contract import DEVIATIONS


def test_every_deviation_is_asserted_by_a_test_and_every_asserted_one_is_listed() -> None:
    tests = (file.read_text() for file in Path(__file__).parent.glob("test_contract_*.py"))
    asserted = {name for text in tests for name in re.findall(r'deviates\("([^"{]+)"\)', text)}
    assert asserted == {behaviour for behaviours in DEVIATIONS.values() for behaviour in behaviours}
