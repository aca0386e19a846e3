import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.align.limits import check_alignment, max_dim

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
    assert max_dim(method, WIDTHS) == dim
    check_alignment(job(method=method, dim=dim), WIDTHS, 2)
    with pytest.raises(JobError, match=rf"alignment\.dim: {dim + 1} .* {dim} .*text 6, image 9, sound 4"):
        check_alignment(job(method=method, dim=dim + 1), WIDTHS, 2)


@pytest.mark.parametrize("method", ["pca", "joint", "cca"])
def test_the_default_dim_is_never_wrong(method):
    check_alignment(job(method=method), WIDTHS, 2)


def test_none_wants_equal_widths_and_their_dim():
    equal = dict.fromkeys(WIDTHS, 5)
    check_alignment(job(method="none"), equal, 2)
    check_alignment(job(method="none", dim=5), equal, 2)
    with pytest.raises(JobError, match=r"alignment\.dim"):
        check_alignment(job(method="none", dim=4), equal, 2)
    with pytest.raises(JobError, match=r"alignment\.method: .*text 6, image 9, sound 4"):
        check_alignment(job(method="none"), WIDTHS, 2)


def test_weights_that_no_average_heeds_are_refused():
    def given(**average):
        return Job.model_validate(job().model_dump(by_alias=True) | {"average": average})

    given(method="weighted", weights={"text": 2.0})
    given(method="auto", weights={"text": 1.0, "image": 1.0})
    for method in ("auto", "mean", "spherical"):
        with pytest.raises(ValueError, match="ignores them"):
            given(method=method, weights={"text": 2.0})


@pytest.mark.parametrize(
    ("key", "keep", "refused"),
    [
        ("id", ["has_toxicity", "aligned_", "count_x"], False),
        (None, ["key"], True),
        ("id", ["key"], True),
        ("id", ["has_text"], True),
        ("id", ["Fused"], True),
        ("id", ["aligned_sound"], True),
    ],
)
def test_only_columns_that_the_output_really_has_are_reserved(key, keep, refused):
    data = job().model_dump(by_alias=True) | {"corpus": {"path": "rows.jsonl", "key": key, "keep": keep}}
    if not refused:
        assert Job.model_validate(data).corpus.keep == keep
        return
    with pytest.raises(ValueError, match=r"is a column of the output|is reserved by readers"):
        Job.model_validate(data)


@pytest.mark.parametrize("method", ["auto", "pca", "joint"])
def test_one_row_is_too_few_for_any_alignment_but_none(method):
    with pytest.raises(JobError, match=rf"^alignment\.method: `{method}` needs at least two rows, the corpus has one"):
        check_alignment(job(method=method), WIDTHS, 1)
    check_alignment(job(method="none"), dict.fromkeys(WIDTHS, 5), 1)
