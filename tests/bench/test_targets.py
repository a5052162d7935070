"""A target is met, missed or not measured; and all of them name loads and contenders that exist."""

import io
import re

import pytest
from rich.console import Console

from bench.interleaved_rounds import Result
from bench.loads.catalogue import LOADS
from bench.measurement import Measurement
from bench.targets import TARGETS, BenchTarget, NotMeasuredError, print_targets


class AskedFor(dict[str, Measurement]):
    """Medians that have everything, and note what they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return True

    def __getitem__(self, name: str) -> Measurement:
        return Measurement(1, 1, 1, more={"p50 ms": 1, "p99 ms": 1, "caretaker % of a core": 1})


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_asks_for_contenders_of_its_load(target: BenchTarget) -> None:
    medians = AskedFor()
    target.figure(medians)
    known = {contender.name for contender in LOADS[target.load].contenders}
    assert medians.names
    assert medians.names <= known
    with pytest.raises(NotMeasuredError):
        target.figure({})


def verdicts(ours: Measurement, peer: Measurement) -> str:
    result = Result(LOADS["small"], {"celery": [peer], "blobferry": [ours]})
    console = Console(file=io.StringIO(), width=120)
    print_targets(console, [result])
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def line(text: str, name: str) -> str:
    return next(row for row in text.splitlines() if re.search(rf"{name}\b", row))


def test_a_figure_on_the_bound_meets_it_and_one_beyond_misses_it() -> None:
    peer = Measurement(units=100, wall=1.0, cpu=1.0)
    met = verdicts(Measurement(units=100, wall=1.0, cpu=1.5), peer)
    assert "met" in line(met, "small: jobs/s")
    assert "met" in line(met, "small: CPU")
    missed = verdicts(Measurement(units=100, wall=1.1, cpu=1.6), peer)
    assert "missed" in line(missed, "small: jobs/s")
    assert "missed" in line(missed, "small: CPU")
    assert "not measured" in line(missed, "idle stack, p50")


def test_a_median_is_that_of_all_rounds() -> None:
    rounds = [Measurement(units=10, wall=wall, cpu=cpu) for wall, cpu in ((1.0, 3.0), (2.0, 1.0), (9.0, 2.0))]
    median = Result(LOADS["small"], {"celery": rounds}).median("celery")
    assert median is not None
    assert (median.wall, median.cpu, median.rate, median.cpu_per_unit) == (2.0, 2.0, 5.0, 0.2)
