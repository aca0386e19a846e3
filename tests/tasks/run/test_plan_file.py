"""plan.json: the engine is chosen once, kinds of machine and writers are side by side."""

import json

import pytest

from barycenter.fusion.encoders import Description
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.run import plan_file
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.plan_file import (
    adopt_once_more,
    as_adopted,
    engine_of,
    fix_engine,
    resolve_engine,
    times_adopted,
    update_plan,
)
from barycenter.tasks.run.workers import THIS_PROCESS


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "out"))


def job_of(tmp_path, **alignment):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": "a text"}))
    return Job.model_validate(
        {
            "corpus": {"path": str(tmp_path / "rows.jsonl"), "key": "id"},
            "inputs": {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"}},
            "alignment": alignment,
            "output": {"path": str(tmp_path / "out")},
        }
    )


def test_the_engine_is_chosen_once_and_obeyed(storage, monkeypatch):
    assert (engine_of(storage), resolve_engine(storage)) == (None, "torch")
    fix_engine(storage, "torch")
    written = storage.read("plan.json")
    monkeypatch.setattr(plan_file, "ENGINES", ("json", "torch"))
    assert (engine_of(storage), resolve_engine(storage)) == ("torch", "torch")
    fix_engine(storage, "torch")
    assert storage.read("plan.json") == written
    with pytest.raises(RunError, match="another run chose the engine torch"):
        fix_engine(storage, "json")
    assert resolve_engine(Storage(storage.root + "-other")) == "json"


def test_it_is_in_the_plan_before_the_first_row_and_nothing_is_written_before(tmp_path, storage, monkeypatch):
    run = Run(job_of(tmp_path))
    assert storage.list() == []

    def stop(*_):
        raise RunError("stopped")

    monkeypatch.setattr("barycenter.tasks.embed.stage._embed_input", stop)
    with pytest.raises(RunError, match="stopped"):
        embed_input(run, "text", THIS_PROCESS)
    assert json.loads(storage.read("plan.json")) == {"engine": "torch"}


def test_an_engine_that_is_not_here_is_not_replaced_by_another(tmp_path, storage, monkeypatch):
    storage.write("plan.json", json.dumps({"engine": "onnx"}).encode())
    with pytest.raises(
        JobError, match=r"^output\.path: .*plan\.json says that the engine is onnx, which is not installed"
    ):
        Run(job_of(tmp_path))
    storage.write("plan.json", json.dumps({"engine": "torch"}).encode())
    monkeypatch.setattr(plan_file, "find_spec", lambda _: None)
    with pytest.raises(JobError, match="the engine is torch, which is not installed"):
        Run(job_of(tmp_path))


def test_an_output_takes_the_engine_of_the_one_it_borrows_from(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(plan_file, "ENGINES", ("torch", "json"))
    lender = Storage(str(tmp_path / "lender"))
    assert resolve_engine(storage, lender) == "torch"
    lender.write("plan.json", json.dumps({"engine": "json"}).encode())
    assert resolve_engine(storage, lender) == "json"
    assert Run(job_of(tmp_path, **{"from": str(tmp_path / "lender")})).engine == "json"
    fix_engine(storage, "torch")
    with pytest.raises(JobError, match=r"^alignment\.from: is made with the engine json, this output with torch"):
        resolve_engine(storage, lender)
    lender.write("plan.json", json.dumps({"engine": "onnx"}).encode())
    with pytest.raises(JobError, match=r"^alignment\.from: .*lender/plan\.json says that the engine is onnx"):
        resolve_engine(Storage(str(tmp_path / "new")), lender)


def test_an_output_takes_the_engine_of_the_one_whose_vectors_it_takes_over(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(plan_file, "ENGINES", ("torch", "json"))
    other = Storage(str(tmp_path / "other"))
    assert resolve_engine(storage, None, [other]) == "torch"
    other.write("plan.json", json.dumps({"engine": "json"}).encode())
    assert resolve_engine(storage, None, [Storage(str(tmp_path / "none")), other]) == "json"
    fix_engine(storage, "torch")
    assert resolve_engine(storage, None, [other]) == "torch"
    other.write("plan.json", json.dumps({"engine": "onnx"}).encode())
    with pytest.raises(JobError, match=r"^output\.reuse: .*other/plan\.json says that the engine is onnx"):
        resolve_engine(Storage(str(tmp_path / "new")), None, [other])


def test_a_plan_from_before_there_were_engines_was_made_with_torch(storage):
    storage.write("plan.json", json.dumps({"inputs": {}}).encode())
    assert engine_of(storage) == "torch"


def test_what_another_run_writes_meanwhile_is_kept(storage, monkeypatch):
    seen = []

    def change(plan):
        if not seen:
            seen.append(update_plan(storage, lambda other: other.update(theirs=1)))
        plan["ours"] = 2

    assert update_plan(storage, change) == {"theirs": 1, "ours": 2}
    assert json.loads(storage.read("plan.json")) == {"theirs": 1, "ours": 2}
    monkeypatch.setattr(Storage, "replace", lambda *_: False)
    with pytest.raises(RunError, match="run again"):
        update_plan(storage, lambda plan: plan.update(ours=3))


def test_an_adopted_encoder_has_another_id_each_time(storage):
    described = Description.of(3, {"kind": "text"})
    assert (times_adopted(storage, "a", described.encoder_id), as_adopted(described, 0)) == (0, described)
    assert [adopt_once_more(storage, "a", described.encoder_id) for _ in range(2)] == [1, 2]
    assert times_adopted(storage, "a", described.encoder_id) == 2
    assert times_adopted(storage, "b", described.encoder_id) == 0
    assert len({as_adopted(described, times).encoder_id for times in range(3)}) == 3
