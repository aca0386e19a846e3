"""Every key of a job file belongs to the identities that the table says, and to no other."""

import shutil
from datetime import date

import pytest

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.encoders.fingerprint import library_versions
from barycenter.infra.job.models import NOT_IN_THE_JOB_HASH, Job
from barycenter.infra.storage import Storage
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.identities import (
    alignment_settings,
    embedding_ids,
    embedding_parts,
    head_folder,
    moments_parts,
    report_id,
    version_id,
)
from tests.tasks.identity_corpus import job, write_everything
from tests.tasks.identity_runs import Outputs, in_this_process
from tests.tasks.identity_table import LINES, keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("identity")
    write_everything(place)
    return place


@pytest.fixture
def in_process(monkeypatch):
    in_this_process(monkeypatch)


@pytest.fixture(scope="module")
def outputs(folder):
    return Outputs(folder)


def identities(data, **flags):
    """Every identity of a job; those of the later stages for one alignment and one average."""
    given = Job.model_validate(data)
    run = Run(given, **flags)
    version = version_id(run, "an alignment", "mean", None)
    found = dict(embedding_ids(run)) if not run.unjoined else {}
    return found | {
        "moments": digest(moments_parts(run)) if not run.unjoined else None,
        "settings": alignment_settings(run) if not run.unjoined else None,
        "version": version,
        "head": head_folder(version, given.train, given.seed),
        "report": report_id(
            run,
            Manifest(version=version, key="id", dim=1, dtype="float32", inputs={}, files=()),
            {"alignment_id": "an alignment"},
        ),
    }


def test_every_key_is_placed():
    placed = {line.key for line in LINES}
    assert sorted(set(keys()) - placed) == [], "place these in tests/tasks/identity_table.py"
    assert sorted(placed - set(keys())) == []
    assert {"output.path", "inputs.*.preprocessing.crop", "inputs.*.corpus.key", "train.group_by"} <= placed


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_key_changes_its_identities_and_no_other(line, folder, in_process, outputs):
    before, after = (identities(outputs.joined(data)) for data in (line.before(folder), line.after(folder)))
    assert {name for name in before if before[name] != after[name]} == set(line.changes)


OUTSIDE = ("output.path", "output.reuse", "output.promote", "output.busy", "limits.deadline")


@pytest.mark.parametrize("line", LINES, ids=str)
def test_the_job_hash_leaves_out_where_results_go_and_who_works(line, folder):
    before, after = (Job.model_validate(data) for data in (line.before(folder), line.after(folder)))
    outside = line.key in OUTSIDE or line.key.startswith(("ray.", "deployment."))
    assert (before.fingerprint() == after.fingerprint()) == outside
    assert {"path", "reuse", "publish", "promote", "busy"} == NOT_IN_THE_JOB_HASH["output"]


def test_a_corpus_as_it_was_has_the_identities_of_one_without_the_later_files(folder, tmp_path, in_process):
    for day, name in ((30, "a.jsonl"), (31, "b.jsonl")):
        dated = tmp_path / f"date=2024-01-{day}"
        dated.mkdir()
        shutil.copy2(folder / "grown" / name, dated)
    data = job(folder)
    data["corpus"]["path"] = str(tmp_path)
    now, then = identities(data), identities(data, as_of=date(2024, 1, 30))
    shutil.rmtree(tmp_path / "date=2024-01-31")
    assert then == identities(data)
    assert then["version"] != now["version"]


def test_the_order_of_the_inputs_belongs_to_what_is_fitted_and_written(folder):
    data = job(folder)
    other = data | {"inputs": dict(reversed(data["inputs"].items()))}
    before, after = identities(data), identities(other)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"moments", "settings", "version", "head", "report"}


def test_an_explicit_dim_is_another_setting_than_the_default(folder):
    data = job(folder)
    default = data | {"alignment": {"method": "joint"}}
    explicit = data | {"alignment": {"method": "joint", "dim": 20}}
    assert Job.model_validate(default).alignment.dim > 20
    assert identities(default)["settings"] != identities(explicit)["settings"]


def test_the_parts_of_an_embedding_are_listed_openly(folder):
    parts = embedding_parts(Run(Job.model_validate(job(folder))), "image")
    assert parts["key"] == [["sku", "column sku", "string"]]
    assert parts["columns"] == [["image", "column image", "string"]]
    assert parts["limits"]["max_pixels"] == 10_000


def test_identities_take_no_object_whose_text_is_its_address():
    with pytest.raises(TypeError, match="no place in an identity"):
        digest({"a": object()})


def test_no_version_of_a_library_is_in_any_identity(folder, monkeypatch):
    before = identities(job(folder))
    monkeypatch.setattr("barycenter.fusion.encoders.fingerprint.installed_version", lambda _: "99.0")
    assert identities(job(folder)) == before
    assert library_versions("torch") == {"torch": "99.0"}


def test_the_engine_is_in_the_identities_of_what_runs_a_model(folder, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.run.plan_file.ENGINES", ("torch", "json"))
    data = job(folder)
    before = identities(data)
    other = data | {"output": {"path": str(folder / "of-another-engine")}}
    Storage(other["output"]["path"]).write("plan.json", b'{"engine": "json"}')
    after = identities(other)
    assert {name for name in before if before[name] != after[name]} == set(before) - {"vec"}


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    assert digest(np.int64(2), np.float32(0.5), np.bool_(True)) == digest(2, 0.5, True)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if line.runs], ids=str)
def test_a_rerun_with_another_value_is_a_run_in_an_empty_output(line, folder, in_process, outputs, capfd):
    """Byte for byte with a refit; without one an alignment may be kept, and then that is said.

    Other settings of the fit are fitted in any case, so a refit is not tried with them.
    """
    again, refitted, fresh = outputs.rerun(line.before(folder), line.after(folder), "settings" not in line.changes)
    assert refitted.embeddings.items() >= fresh.embeddings.items()
    assert refitted.features == fresh.features
    assert refitted.report == fresh.report
    assert again.embeddings.items() >= fresh.embeddings.items()
    kept = again.report["alignment"]["kept"]
    assert kept == ("is kept, it was fitted on other rows" in capfd.readouterr().err)
    assert kept == again.manifest["alignment"]["kept"]
    assert kept or (again.features == fresh.features and again.report == fresh.report)
