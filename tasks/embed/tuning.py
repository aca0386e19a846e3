"""A worker's pipeline, set up as plan.json has it for this kind of machine, or as a short trial finds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from barycenter.fusion.encoders.machine import has_wide_vectors
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.encoders.trial import MakePipeline, find_fastest
from barycenter.tasks.embed.execution import Execution


class Tuning:
    """How one worker runs its encoder.

    Args:
        make: Loads the encoder.
        executions: What plan.json has, by kind of machine.
        machine: The kind of this one.
        bound: As for :func:`~barycenter.fusion.encoders.trial.find_fastest`.
    """

    def __init__(self, make: MakePipeline, executions: Mapping[str, Execution], machine: str, bound: float) -> None:
        self._make, self._machine, self._bound = make, machine, bound
        self._lock = Lock()
        self.execution = executions.get(machine)
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The encoder with its threads, loaded when it is first asked for."""
        if self._pipeline is None:
            self._pipeline = self._made(self.execution)
        return self._pipeline

    def settle(
        self,
        executions: Mapping[str, Execution],
        asked: Execution,
        sample: Callable[[], Sequence[object]],
        rows: int,
    ) -> tuple[Execution, int]:
        """Sets the pipeline up, unless it is: as it was found on another worker of this kind, else by a trial.

        Args:
            executions: What was found until now, by kind of machine.
            asked: What is given by the job.
            sample: Reads some values.
            rows: Rows to come.

        Returns:
            How the encoder runs from now on, and how many rows were encoded to find it.
        """
        with self._lock:
            if self.execution is not None:
                return self.execution, 0
            if found := executions.get(self._machine):
                self._follow(found)
                return found, 0
            if asked.is_found:
                self.execution = asked
                return asked, 0
            fastest = find_fastest(
                self._make, self.pipeline, sample(), rows=rows, batch=asked.batch, bound=self._bound
            )  # fmt: skip
            self._pipeline = fastest.pipeline
            self.execution = replace(
                asked, batch=fastest.batch, onednn=fastest.onednn, model_threads=fastest.model_threads
            )
            return self.execution, fastest.rows

    def _follow(self, found: Execution) -> None:
        as_usual = replace(found, onednn=has_wide_vectors(), model_threads=None)
        if self._pipeline is not None and found != as_usual:
            self._pipeline.__exit__()
            self._pipeline = None
        self.execution = found

    def _made(self, execution: Execution | None) -> Pipeline:
        if execution is None:
            return self._make(onednn=has_wide_vectors(), model_threads=None)
        return self._make(onednn=execution.onednn is not False, model_threads=execution.model_threads)
