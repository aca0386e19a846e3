"""What the fit and the report say of too few rows: one line, never a traceback."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.alignment import AlignmentSearch, Joint, Sample
from barycenter.fusion.errors import RunError
from barycenter.fusion.heads.labels import find_reading
from barycenter.fusion.heads.targets import as_objects
from barycenter.fusion.moments import FoldMoments
from barycenter.tasks.align.stage import _fit
from barycenter.tasks.report.probing import probe_rows


def make_views(n):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(n, 4)).astype(np.float32) for name in ("text", "image")}


@pytest.mark.parametrize("n", [0, 1])
def test_a_fit_on_too_few_rows_says_how_many_there_are(n):
    job = SimpleNamespace(alignment=SimpleNamespace(method="cca"), average=SimpleNamespace(method="mean"))
    views = {name: values[:n] for name, values in make_views(1).items()}

    def moments():
        return Joint(2).fit_moments(FoldMoments.of(views))

    have = "1 row has" if n == 1 else "0 rows have"
    with pytest.raises(RunError, match=rf"cca: {have} every input \(text {n}, image {n}\); .* needs at least 2"):
        _fit(SimpleNamespace(job=job), None, moments)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("n_train", [0, 1, 2, 4])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_probe_of_too_few_rows_is_left_out_with_a_reason(n_train, task):
    views = make_views(6)
    labels = list("ababab") if task == "classification" else [1.0, 1.5, 2.0, 2.5, 3.0, 9.0]
    test = np.arange(6) >= n_train
    rows = SimpleNamespace(
        views=views, test=test, training=~test, groups=list("123456"), kept=pa.table({"label": labels}),
        keys=list("123456"),
    )  # fmt: skip
    train = {name: values[~test] for name, values in views.items()}
    fitted = SimpleNamespace(alignment=Joint(2, 0.1).fit(views), average=("mean", None), summary={})
    job = SimpleNamespace(
        train=SimpleNamespace(target="label", task=task), alignment=SimpleNamespace(folds=5), average=None
    )
    notes: list[str] = []
    target = find_reading("label", rows.kept.column("label").type, labels, task).reading
    found = probe_rows(
        SimpleNamespace(job=job), fitted, rows, as_objects(labels), target, FoldMoments.of(train), notes
    ).figures
    assert found["task"] == task
    if n_train < 2:
        assert found["n_test"] == 0
        assert notes[0].startswith("no probe: ")
    else:
        assert found["n_test"] == 6 - n_train


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_input_that_never_varies_has_a_probe():
    views, labels = make_views(60), []
    views["image"][:] = 2.5
    labels = ["a" if value > 0 else "b" for value in views["text"][:, 0]]
    test = np.arange(60) % 5 == 0
    keys = list(map(str, range(60)))
    kept = pa.table({"label": labels})
    rows = SimpleNamespace(views=views, test=test, training=~test, groups=keys, kept=kept, keys=keys)
    train = {name: values[~test] for name, values in views.items()}
    groups = [key for key, held in zip(keys, test, strict=True) if not held]
    known = [label for label, held in zip(labels, test, strict=True) if not held]
    folds = FoldMoments.of(train, 5, groups)
    search = AlignmentSearch(dim=3).fit_moments(folds, Sample(train, groups, known))
    fitted = SimpleNamespace(
        alignment=search.best_estimator_, average=("weighted", search.average_weights_), summary=search.to_dict()
    )
    job = SimpleNamespace(
        train=SimpleNamespace(target="label", task="classification"), alignment=SimpleNamespace(folds=3)
    )
    notes: list[str] = []
    target = find_reading("label", pa.string(), labels, "classification").reading
    probed = probe_rows(SimpleNamespace(job=job), fitted, rows, as_objects(labels), target, folds, notes)
    found = probed.figures
    assert len(probed.predictions.rows) == found["cross_validated"]["n_test"] == 60
    assert sorted(probed.rows) == list(range(60))
    for name, by in probed.scores.items():
        assert by["complete"].mean() == pytest.approx(found["cross_validated"]["candidates"][name]["complete"])
    assert not notes
    crossed = found["cross_validated"]["candidates"]
    assert crossed["fused"]["complete"] >= crossed["text"]["complete"] - 0.1
