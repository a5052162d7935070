"""Rounds in which every contender takes its turn, so that whatever else the machine does hits all of them alike."""

from dataclasses import dataclass, field
from statistics import median

from rich.console import Console

from bench.measurement import Load, Measurement
from bench.peer_environments import MissingPeerError
from bench.stage import Stage
from dev.process import ServiceError


@dataclass(slots=True)
class Result:
    """What was measured for one load."""

    load: Load
    measured: dict[str, list[Measurement]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  #: why, by contender

    def median(self, contender: str) -> Measurement | None:
        """The medians of a contender's figures; None if it was not measured."""
        found = self.measured.get(contender)
        if not found:
            return None
        names = {name: None for measurement in found for name in measurement.more}
        return Measurement(
            units=median(measurement.units for measurement in found),
            wall=median(measurement.wall for measurement in found),
            cpu=median(measurement.cpu for measurement in found),
            memory=int(median(measurement.memory for measurement in found)),
            more={name: median(measurement.more.get(name, 0.0) for measurement in found) for name in names},
        )

    def medians(self) -> dict[str, Measurement]:
        """The medians of all contenders that were measured."""
        return {name: found for name in self.measured if (found := self.median(name)) is not None}


def run_rounds(stage: Stage, load: Load, console: Console) -> Result:
    """Measure the load. A contender that cannot be had, or fails, is named with the reason."""
    result = Result(load)
    wanted = stage.options.contenders
    contenders = [contender for contender in load.contenders if not wanted or contender.name in wanted]
    for number in range(1, stage.options.rounds + 1):
        for contender in contenders:
            if contender.name in result.missing:
                continue
            try:
                measurement = contender.measure(stage)
            except (MissingPeerError, ServiceError) as error:
                result.missing[contender.name] = str(error)
                console.print(f"{load.name} {number}: {contender.name}: {error}", markup=False)
                continue
            result.measured.setdefault(contender.name, []).append(measurement)
            console.print(
                f"{load.name} {number}: {contender.name}: {measurement.rate:.3g} {load.unit}/s, "
                f"{measurement.cpu_per_unit * 1000:.4g} CPU ms/{load.unit}",
                markup=False,
            )
    return result
