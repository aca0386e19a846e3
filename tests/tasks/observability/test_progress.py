import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from barycenter.infra.clock import use_clock
from barycenter.infra.storage import Storage
from barycenter.tasks.observability import progress
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.progress_file import read_progress
from tests.infra.simulation import SimulatedClock


def test_plain_lines_go_to_stderr(capsys):
    with StageProgress("embed text", 1500, skipped=300) as stage:
        stage.advance(1000)
        stage.advance(500)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("embed text: 1,500/1,500 rows, ")
    assert "rows/s" in printed.err
    assert "300 rows were done before" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_failed_stage_claims_no_end(capsys):
    with pytest.raises(ValueError, match="broken"), StageProgress("fit", 10):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with StageProgress("fuse", 20) as stage:
        stage.advance(20)
    assert "fuse" in screen.getvalue()
    assert "20/20" in screen.getvalue()


def test_figures_are_the_reports():
    stage = StageProgress("fuse", 10)
    assert stage.figures()["rows_per_s"] == 0.0
    stage.advance(10)
    figures = stage.figures()
    assert set(figures) == {"rows", "seconds", "rows_per_s"}
    assert figures["rows"] == 10
    assert figures["rows_per_s"] > 0


def test_a_stage_without_parts_counts_the_seconds_of_its_work(monkeypatch):
    seen = []
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(progress, "current_clock", lambda: clock)
    stage = StageProgress("fuse", 100)
    monkeypatch.setattr(stage._metrics, "advance", lambda rows, left, parts: seen.append((rows, left, dict(parts))))
    for now, parts in ((2.0, None), (5.0, None), (6.0, {"model": 0.5})):
        clock.now = now
        stage.advance(10, parts)
    assert seen == [(10, 90, {"work": 2.0}), (10, 80, {"work": 3.0}), (10, 70, {"model": 0.5})]


def test_stages_side_by_side_are_all_in_the_file(tmp_path):
    storage, clock = Storage(str(tmp_path)), SimulatedClock()

    def advance(stage, rows):
        clock.sleep(3)
        stage.advance(rows)
        return {each["stage"]: each["rows"] for each in read_progress(storage)["stages"]}

    with use_clock(clock):
        with StageProgress("embed text", 40, storage=storage) as text:
            with StageProgress("embed vec", 40, storage=storage) as vec:
                assert advance(text, 10) == {"embed text": 10}
                assert advance(vec, 20) == {"embed text": 10, "embed vec": 20}
                assert advance(text, 10) == {"embed text": 20, "embed vec": 20}
                vec.advance(20)
            assert advance(text, 10) == {"embed text": 30, "embed vec": 40}
        with StageProgress("fit", 40, storage=storage) as fit:
            assert advance(fit, 40) == {"fit": 40}
