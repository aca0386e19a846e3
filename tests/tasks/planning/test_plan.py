import os

import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.planning.plan import check_output, prepare
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines


def test_an_output_that_is_a_file_or_below_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    check_output(Storage(str(tmp_path / "new" / "folder")))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    with pytest.raises(JobError, match=r"output\.path: .*/file is a file; name a folder"):
        check_output(Storage(str(tmp_path / "file")))
    with pytest.raises(JobError, match=r"output\.path: .*lies below .*/file, which is no folder"):
        check_output(Storage(str(tmp_path / "file" / "out")))


def test_an_output_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(JobError, match=r"output\.path: .* may not be written to"):
        check_output(Storage(str(tmp_path / "out")))


def test_an_alignment_that_cannot_be_borrowed_is_refused_before_the_work(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    lent = text_and_vector_job(corpus, tmp_path / "lent", "lent", alignment={"method": "pca", "dim": 3})
    job = text_and_vector_job(corpus, tmp_path / "out", "borrows") | {"alignment": {"from": str(tmp_path / "lent")}}

    def refusal():
        with pytest.raises(JobError) as caught:
            prepare(Job.model_validate(job))
        assert caught.value.key == "alignment.from"
        return caught.value.problem

    assert "lent/manifest.json: nothing has been committed here yet; name the output of a finished run" in refusal()
    lent["output"]["promote"] = "manual"
    run_here(lent)
    assert "no version is shown to readers yet (there are: 1); choose one with `barycenter promote`" in refusal()
    lent["output"]["promote"] = "auto"
    run_here(lent)
    assert prepare(Job.model_validate(job)).rows == 20
    job["inputs"]["text"]["column"] = job["inputs"]["vec"]["column"] = "vec"
    job["inputs"] = {"text": job["inputs"].pop("vec"), "vec": {**job["inputs"].pop("text"), "column": "text"}}
    assert refusal() == "was fitted on other encoders of text, vec; embed with the same ones"
    assert not (tmp_path / "out").exists()
