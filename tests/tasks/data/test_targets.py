import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines


def prepared(folder, groups):
    rows = [row | {"group": group} for row, group in zip(text_and_vector_rows(len(groups)), groups, strict=True)]
    corpus = write_lines(folder / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, folder / "out", "grouped", train={"target": "label", "group_by": "group"})
    return prepare(Job.model_validate(job))


def test_groups_that_are_one_hold_nothing_out(tmp_path):
    with pytest.raises(JobError) as caught:
        prepared(tmp_path, ["same"] * 30)
    assert str(caught.value) == (
        "train.group_by: all 30 rows have the same `group` ('same'), so none can be held out from the others; name a "
        "column with more values, or leave it out"
    )


@pytest.mark.parametrize("groups", [["same"] * 29 + ["other"], ["same"] * 29 + [None], [None] * 30])
def test_a_row_without_a_group_is_one_of_its_own(tmp_path, groups):
    assert prepared(tmp_path, groups).rows == 30
