"""All evaluations of a run, from before the first step to after the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from ebft.data.corpus import digest_documents
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.evaluation.lines import DocumentsLine, Line, check_values
from ebft.evaluation.measure import EvaluationSet, clusters
from ebft.files import write_whole
from ebft.parts.measurements import Measurement
from ebft.scoring.interval import Interval, mean_interval, paired_change


class Evaluations:
    """Every value of a run's evaluations, which are all on the same documents."""

    def __init__(self) -> None:
        self._evaluations: dict[int, dict[str, Measurement]] = {}

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Self:
        """Returns the evaluations that `read_evaluations` read, without figures that have no values
        of single documents."""
        found = cls()
        for line in lines:
            if isinstance(line, DocumentsLine):
                found._evaluations.setdefault(line.step, {})[line.name] = line.measurement()
        return found

    def means(self, steps_done: int) -> dict[str, float]:
        """Returns the mean of every measurement after `steps_done` steps."""
        measured = self._evaluations[steps_done]
        return {name: mean_interval(measurement).mean for name, measurement in measured.items()}

    def bounds(self, steps_done: int) -> dict[str, float]:
        """Returns the ends of the 95 % intervals as `name, low` and `name, high`, without those of
        too few documents."""
        found: dict[str, float] = {}
        for name, measurement in self._evaluations[steps_done].items():
            interval = mean_interval(measurement)
            if not interval.too_few:
                found[f"{name}, low"] = interval.mean - interval.half_width
                found[f"{name}, high"] = interval.mean + interval.half_width
        return found

    def scores(self, name: str) -> dict[int, float]:
        """Returns the mean of one measurement, by the number of steps done."""
        return {
            steps_done: mean_interval(measured[name]).mean
            for steps_done, measured in self._evaluations.items()
            if name in measured
        }

    def changes(self, name: str) -> Iterator[tuple[int, Interval]]:
        """Yields the steps done and the measurement's change since the first evaluation."""
        for steps_done, measured in sorted(self._evaluations.items()):
            change = paired_change(self.first[name], measured[name])
            # The change of the first evaluation from itself is exactly 0.
            yield steps_done, replace(change, half_width=0.0) if measured is self.first else change

    @property
    def first(self) -> Mapping[str, Measurement]:
        return self._evaluations[min(self._evaluations)]

    @property
    def last(self) -> Mapping[str, Measurement]:
        return self._evaluations[max(self._evaluations)]

    def __contains__(self, steps_done: int) -> bool:
        return steps_done in self._evaluations

    def __len__(self) -> int:
        return len(self._evaluations)


class History(Evaluations):
    """The evaluations of a run, while it runs.

    Each evaluation is also appended to `file`, one JSON object per line, with the value of every
    document and a digest of the documents, so that runs on the same documents can be paired.
    """

    def __init__(
        self, sets: Sequence[EvaluationSet], file: Path, *, processes: Processes = ONE_PROCESS
    ) -> None:
        super().__init__()
        self._file, self._processes = file, processes
        self._digests = {one.name: digest_documents(one.documents) for one in sets}
        self._clusters = {one.name: clusters(one.documents) for one in sets}

    def add(self, steps_done: int, measured: Mapping[str, Measurement]) -> None:
        """Adds the result of `measure` after `steps_done` steps."""
        self._evaluations[steps_done] = dict(measured)
        if self._processes.is_main:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(self._lines(steps_done))

    def state_dict(self) -> dict[str, Any]:
        """Returns every value, for a checkpoint."""
        return {
            str(steps_done): {name: asdict(m) for name, m in measured.items()}
            for steps_done, measured in self._evaluations.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the evaluations of a checkpoint, and rewrites the file with only these."""
        self._evaluations = {
            int(steps_done): {name: self._measurement(fields) for name, fields in measured.items()}
            for steps_done, measured in state.items()
        }
        if self._processes.is_main:
            write_whole(self._file, "".join(map(self._lines, self._evaluations)))

    def _measurement(self, fields: Mapping[str, Any]) -> Measurement:
        measured = Measurement(**{**fields, "clusters": self._clusters[fields["of"]]})
        assert measured.clusters is not None
        check_values(measured.value.tolist(), measured.weight.tolist(), measured.clusters.tolist())
        return measured

    def _lines(self, steps_done: int) -> str:
        lines = [
            DocumentsLine.of(steps_done, measurement, self._digests[measurement.of])
            for measurement in self._evaluations[steps_done].values()
        ]
        return "".join(line.to_json() + "\n" for line in lines)
