"""A run whose time is over stops between the steps that the driver takes by itself, too."""

import pytest

from barycenter.fusion.errors import DeadlineError
from barycenter.infra.clock import use_clock
from barycenter.tasks.align import stage as aligning
from barycenter.tasks.heads import stage as training
from barycenter.tasks.report import stage as reporting
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines
from tests.infra.simulation import SimulatedClock


class Ticking(SimulatedClock):
    """Passes a little whenever it is looked at, as work takes its time."""

    def monotonic(self):
        self.now += 0.001
        return self.now


@pytest.mark.parametrize(
    ("module", "step", "stage", "never"),
    [
        (aligning, "stored_moments", "fit", "read_sample"),
        (training, "read_labeled", "train", "_save"),
        (reporting, "_retrieval", "report", "_beyond_chance"),
        (reporting, "_beyond_chance", "report", "neighbor_examples"),
    ],
)
def test_it_stops_after_the_step(tmp_path, monkeypatch, module, step, stage, never):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(60))
    job = text_and_vector_job(
        corpus, tmp_path / "out", "late", ray={"address": "none"}, train={"target": "label"}, limits={"deadline": "6h"}
    )
    clock, slow, left_out = Ticking(), getattr(module, step), getattr(module, never)
    reached = []

    def slowly(*args, **kwargs):
        result = slow(*args, **kwargs)
        clock.sleep(7 * 3600)
        return result

    def note(*args, **kwargs):
        reached.append(never)
        return left_out(*args, **kwargs)

    with monkeypatch.context() as context, use_clock(clock):
        context.setattr(module, step, slowly)
        context.setattr(module, never, note)
        with pytest.raises(DeadlineError, match=rf"limits\.deadline \(6h\) is over: stopped in stage {stage};"):
            run_here(job)
    assert reached == []
