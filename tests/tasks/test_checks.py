import pytest

from fusion.errors import JobError
from infra.job import Job
from tasks.checks import check_alignment, widest

WIDTHS = {"text": 6, "image": 9, "sound": 4}


def job(**alignment):
    return Job.model_validate(
        {
            "corpus": {"path": "rows.jsonl"},
            "inputs": {name: {"kind": "vector", "column": name} for name in WIDTHS},
            "alignment": alignment,
            "output": {"path": "out"},
        }
    )


@pytest.mark.parametrize(("method", "dim"), [("pca", 4), ("procrustes", 4), ("cca", 10), ("joint", 19), ("auto", 19)])
def test_the_widest_dim_is_allowed_and_one_more_is_not(method, dim):
    assert widest(method, WIDTHS) == dim
    check_alignment(job(method=method, dim=dim), WIDTHS)
    with pytest.raises(JobError, match=rf"alignment\.dim: {dim + 1} .* {dim} .*text 6, image 9, sound 4"):
        check_alignment(job(method=method, dim=dim + 1), WIDTHS)


@pytest.mark.parametrize("method", ["pca", "joint", "cca"])
def test_the_default_dim_is_never_wrong(method):
    check_alignment(job(method=method), WIDTHS)


def test_none_wants_equal_widths_and_their_dim():
    equal = dict.fromkeys(WIDTHS, 5)
    check_alignment(job(method="none"), equal)
    check_alignment(job(method="none", dim=5), equal)
    with pytest.raises(JobError, match=r"alignment\.dim"):
        check_alignment(job(method="none", dim=4), equal)
    with pytest.raises(JobError, match=r"alignment\.method: .*text 6, image 9, sound 4"):
        check_alignment(job(method="none"), WIDTHS)
