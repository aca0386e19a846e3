"""Alignments as scikit-learn's transformers: its own checks on one matrix of all inputs, and its tools around them."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from barycenter.fusion.alignment import CCA, METHODS, PCA, AlignmentSearch, Joint, base, load
from barycenter.fusion.heads import LinearHead
from barycenter.fusion.validation import check_views
from tests.fusion.sklearn_checks import run_check

WIDTHS = {"text": 4, "image": 6}
BY_VIEW = "n_features_in_ says the width of each input by its name"
EXPECTED_FAILURES = {
    "check_n_features_in": BY_VIEW,
    "check_n_features_in_after_fitting": BY_VIEW,
    "check_dtype_object": "an array of objects is no matrix of numbers: what is None in it would become NaN unseen",
    "check_estimators_pickle": "a row that is partly NaN is no missing input but a mistake",
    "check_transformer_data_not_an_array": "the halves of this test are cut by numpy.shape",
    "check_fit2d_1sample": "the message counts the rows of each input instead",
}


def in_halves(views, widths):
    """Views; a matrix without widths is cut in halves, since the checks' matrices are of many widths."""
    if widths is None and not isinstance(views, dict):
        columns = np.shape(views)[1] if len(np.shape(views)) == 2 else 1
        widths = {"left": columns // 2, "right": columns - columns // 2} if columns > 1 else {"left": columns}
    return check_views(views, widths)


@parametrize_with_checks([PCA(), Joint()])
def test_alignments_pass_scikit_learns_checks(estimator, check, monkeypatch):
    monkeypatch.setattr(base, "check_views", in_halves)
    run_check(check, estimator, EXPECTED_FAILURES)


def make_rows(n=240):
    rng = np.random.default_rng(0)
    z, own = rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    text = np.hstack([z, own]) @ rng.normal(size=(4, 4)) + 0.1 * rng.normal(size=(n, 4))
    image = z @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(n, 6))
    return {"text": text, "image": image}, np.where(own[:, 0] + z[:, 0] > 0, "yes", "no")


def test_one_matrix_of_all_inputs_is_the_same_as_the_views():
    views, _ = make_rows()
    views["image"][::5] = np.nan
    matrix = np.hstack(list(views.values()))
    by_name, by_columns = Joint(3).fit(views), Joint(3, widths=WIDTHS).fit(matrix)
    assert by_columns.n_features_in_ == WIDTHS
    np.testing.assert_array_equal(by_columns.transform(matrix), by_name.fuse(views))
    np.testing.assert_array_equal(by_columns.fuse(matrix, "posterior"), by_name.fuse(views, "posterior"))


@pytest.mark.parametrize("widths", [{"text": 4, "image": 5}, {"text": 4.5, "image": 5.5}, {"text": 0, "image": 10}])
def test_widths_that_do_not_fit_are_refused(widths):
    with pytest.raises(ValueError, match="widths"):
        Joint(3, widths=widths).fit(np.zeros((20, 10)))


def test_a_pipeline_searches_an_alignments_parameters():
    views, y = make_rows()
    matrix = np.hstack(list(views.values()))
    pipeline = Pipeline([("align", Joint(widths=WIDTHS, folds=1)), ("head", LinearHead())])
    search = GridSearchCV(pipeline, {"align__dim": [1, 6], "align__regularization": [0.01, 0.1]}, cv=3).fit(matrix, y)
    assert search.best_params_["align__dim"] == 6
    assert search.best_score_ > 0.9
    assert cross_val_score(clone(pipeline), matrix, y, cv=3).mean() > 0.9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_labels_are_a_target_and_never_groups():
    views, y = make_rows()
    np.testing.assert_array_equal(CCA(2).fit(views, y).fuse(views), CCA(2).fit(views).fuse(views))
    with pytest.raises(TypeError, match="positional"):
        CCA(2).fit(views, y, y)
    blind, drawn = Joint(2, 0.1).fit(views), Joint(2, 0.1, target_share=0.9).fit(views, pd.Series(y))
    scores = [cross_val_score(LinearHead(), a.fuse(views), y).mean() for a in (blind, drawn)]
    assert scores[1] > scores[0] + 0.05
    with pytest.raises(ValueError, match=r"row 3 .* not finite"):
        Joint(2, target_share=0.9, regularization=0.1).fit(
            views, np.where(np.arange(240) == 3, np.inf, views["text"][:, 0])
        )
    with pytest.raises(ValueError, match="240 rows"):
        Joint(2, target_share=0.9).fit(views, y[:10])


def test_a_search_has_what_scikit_learns_searches_have():
    views, y = make_rows()
    search = AlignmentSearch(dim=3, widths=WIDTHS).fit(np.hstack(list(views.values())), y)
    results = search.cv_results_
    best = search.best_index_
    assert results["params"][best] == search.best_params_
    assert results["mean_test_score"][best] == search.best_score_
    assert set(results) >= {"rank_test_score", "mean_test_complete", "mean_test_without text"}
    assert len(results["params"]) == len(results["rank_test_score"]) == len(search.tried_)
    assert search.transform(np.hstack(list(views.values()))).shape == (240, search.best_estimator_.dim_)
    assert clone(search).get_params() == search.get_params()
    for methods in ((), ("joint", "kernel")):
        with pytest.raises(ValueError, match="methods must be some of"):
            AlignmentSearch(methods=methods).fit(views)
    with pytest.raises(NotFittedError):
        AlignmentSearch().fuse(views)


def test_frames_go_in_and_out():
    views, _ = make_rows()
    frame = pd.DataFrame(np.hstack(list(views.values())), columns=[f"t{i}" for i in range(4)] + list("abcdef"))
    alignment = Joint(3, widths=WIDTHS).set_output(transform="pandas").fit(frame)
    assert alignment.feature_names_in_ == {"text": ["t0", "t1", "t2", "t3"], "image": list("abcdef")}
    fused = alignment.transform(frame)
    assert fused.columns.tolist() == ["joint0", "joint1", "joint2"] == alignment.get_feature_names_out().tolist()
    with pytest.raises(ValueError, match="image: fitted on columns a, b, c, d, e, f, got"):
        alignment.transform(frame[[*frame.columns[:4], *"fedcba"]])
    by_view = Joint(3).fit({"text": frame[["t0", "t1", "t2", "t3"]], "image": pl.DataFrame(views["image"])})
    np.testing.assert_allclose(by_view.fuse(views), fused.to_numpy())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_cloned_and_shown_and_says_when_it_is_not_fitted(method):
    alignment = METHODS[method](folds=3)
    assert clone(alignment).get_params() == alignment.get_params()
    assert "folds=3" in repr(alignment) or alignment.get_params()["folds"] == 3
    assert alignment.__sklearn_tags__().input_tags.allow_nan
    with pytest.raises(NotFittedError):
        alignment.transform({"text": np.zeros((2, 2))})


def test_saved_parameters_name_widths_only_where_they_are_given(tmp_path):
    views, _ = make_rows()
    matrix = np.hstack(list(views.values()))
    Joint(2).fit(views).save(tmp_path)
    assert "widths" not in (tmp_path / "alignment.json").read_text()
    alignment = Joint(2, widths=WIDTHS).fit(matrix)
    alignment.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).fuse(matrix), alignment.fuse(matrix))


@pytest.mark.parametrize("estimator", [Joint(2), AlignmentSearch()], ids=["Joint", "AlignmentSearch"])
def test_views_come_as_arrays_whatever_container_is_asked_for(estimator):
    views, _ = make_rows(120)
    expected = clone(estimator).fit(views).transform(views)
    with config_context(transform_output="pandas"):
        given = clone(estimator).fit_transform(views)
        matrix = Joint(2, widths=WIDTHS).fit_transform(np.hstack(list(views.values())))
    assert isinstance(matrix, pd.DataFrame)
    for name in views:
        assert isinstance(given[name], np.ndarray)
        np.testing.assert_array_equal(given[name], expected[name])


@pytest.mark.parametrize("alignment", [PCA(2), Joint(2, target_share=0.5)], ids=["PCA", "Joint"])
def test_targets_are_one_a_row(alignment):
    views, y = make_rows(120)
    with pytest.raises(ValueError, match="5 targets for 120 rows"):
        alignment.fit(views, y[:5])


def test_widths_are_by_name():
    views, _ = make_rows(120)
    with pytest.raises(TypeError, match="widths must be"):
        PCA(2, widths=[4, 6]).fit(np.hstack(list(views.values())))
