"""What must not matter to a fit: units, the order of inputs and of merges, columns that never vary; and few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.alignment import CCA, PCA, AlignmentSearch, Joint, KernelCCA, Procrustes, Sample
from barycenter.fusion.evaluation.probe import cross_validated_probe
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.moments import FoldMoments, Moments, merge_all

MAKERS = {"cca": lambda: CCA(2, 0.1), "joint": lambda: Joint(2, 0.1), "procrustes": lambda: Procrustes(2, 0.1)}
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")


def make_views(n=120, seed=0):
    """Two shared components of distinct strength, so that their order is no matter of rounding."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2)) * [3.0, 1.5]
    return {m: z @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(n, 4)) for m in ("a", "b")}


def same_up_to_sign(one, other, atol=1e-5):
    signs = np.sign(np.sum(one * other, axis=0))
    np.testing.assert_allclose(one, other * signs, atol=atol * np.abs(other).max())


@pytest.mark.parametrize("method", ["cca", "joint", "procrustes"])
@given(st.floats(-12, 12), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_the_unit_of_an_input_does_not_matter(method, power, seed):
    views = make_views(seed=seed)
    scaled = views | {"a": views["a"] * 10.0**power}
    same_up_to_sign(MAKERS[method]().fit(scaled).fuse(scaled), MAKERS[method]().fit(views).fuse(views), 1e-4)


@pytest.mark.parametrize("method", ["cca", "joint"])
@given(st.integers(0, 5))
@settings(max_examples=4, deadline=None)
def test_the_order_of_inputs_does_not_matter(method, seed):
    views = make_views(seed=seed)
    turned = dict(reversed(views.items()))
    same_up_to_sign(MAKERS[method]().fit(turned).fuse(turned), MAKERS[method]().fit(views).fuse(views), 1e-4)


@given(st.integers(1, 7), st.permutations(range(6)))
@settings(max_examples=8, deadline=None)
def test_the_order_of_merges_does_not_matter(parts, order):
    views = make_views()
    pieces = [Moments.of({m: v[i::6] for m, v in views.items()}, precision="float64") for i in range(6)]
    merged = merge_all([pieces[i] for i in order])
    whole = Moments.of(views, precision="float64")
    np.testing.assert_allclose(merged.cov, whole.cov, atol=1e-10)
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-12)


@QUIET
@pytest.mark.parametrize("method", ["cca", "joint", "procrustes"])
@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 3))
@settings(max_examples=6, deadline=None)
def test_columns_that_never_vary_change_nothing(method, value, count):
    views = {m: v.astype(np.float32) for m, v in make_views().items()}
    wider = views | {"a": np.hstack([views["a"], np.full((120, count), value, np.float32)])}
    # The ridge is relative to the mean variance of all columns, which the new ones lower.
    one, other = MAKERS[method](), MAKERS[method]()
    one.regularization = other.regularization = 0.0
    same_up_to_sign(one.fit(wider).fuse(wider), other.fit(views).fuse(views), 1e-3)


@QUIET
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("labelled", [True, False])
def test_few_rows_give_vectors_or_a_plain_answer(n, labelled):
    views = {m: v[:n] for m, v in make_views().items()}
    sample = Sample(views, None, ["a", "b", "a", "b", "a"][:n] if labelled else None)
    for make in (
        lambda: AlignmentSearch().fit_moments(FoldMoments.of(views), sample).fuse(views),
        lambda: KernelCCA(2).fit(views).fuse(views),
    ):
        if n < 2:
            with pytest.raises(ValueError, match=r"rows? ha(s|ve) every input|no row of the sample has it"):
                make()
        else:
            assert np.isfinite(make()).all()


@QUIET
@pytest.mark.parametrize("labels", [["a"] * 60, ["a"] * 59 + ["b"], list(map(str, range(60))), [1.0] * 60, [None] * 60])
def test_one_class_or_one_row_of_a_class_is_no_trouble(labels):
    views = {m: v[:60] for m, v in make_views().items()}
    search = AlignmentSearch(dim=3).fit_moments(FoldMoments.of(views), Sample(views, None, labels))
    assert np.isfinite(search.fuse(views)).all()


@QUIET
def test_a_target_that_is_constant_in_a_fold_still_chooses():
    """All but a few rows have the same value, so that some held-out folds hold only these."""
    views = make_views(100)
    y = np.zeros(100)
    y[:6] = views["a"][:6, 0]
    search = AlignmentSearch(dim=3).fit_moments(
        FoldMoments.of(views, 10), Sample(views, None, y.tolist(), "regression")
    )
    assert all(-20 < trial["score"] <= 1 for trial in search.tried_)


def test_a_regression_probe_of_few_rows_in_many_folds_has_figures():
    views = {m: v[:20] for m, v in make_views().items()}
    y = views["a"][:, 0].tolist()

    def fit(part, _labels, _groups):
        return Joint(2, 0.1, folds=1).fit(part).fuse

    found = cross_validated_probe(views, y, None, 10, 1, fit, dim=2, task="regression")
    for name, by in found["candidates"].items():
        assert by["complete"] is not None, name
    assert found["candidates"]["a"]["complete"] > 0.9
    assert "intervals" in found


@QUIET
def test_the_random_features_are_bounded_by_the_rows():
    views = make_views(50)
    small = KernelCCA(2).fit(views)
    assert small.feature_dims_ == {"a": 200, "b": 200}
    assert KernelCCA(2, n_features=40).fit(views).feature_dims_ == {"a": 40, "b": 40}
    assert KernelCCA(2).draw(make_views(1000)).feature_dims_ == {"a": 4000, "b": 4000}


@pytest.mark.parametrize("alignment", [PCA(np.int64(2)), Joint(np.int32(2), np.float32(0.1), folds=np.int64(3))])
def test_numpy_parameters_are_saved(alignment, tmp_path):
    from barycenter.fusion.alignment import load

    views = make_views()
    alignment.fit(views).save(tmp_path)
    assert np.array_equal(load(tmp_path).fuse(views), alignment.fuse(views))


@pytest.mark.parametrize("dim", [2.0, True, "2", 0])
def test_a_dim_that_is_no_whole_number_is_refused(dim):
    with pytest.raises(ValueError, match="dim must be a whole number"):
        PCA(dim).fit(make_views())


def test_a_head_on_a_constant_column():
    X = np.hstack([make_views()["a"], np.full((120, 1), 1e6)])
    y = X[:, 0] > 0
    assert LinearHead().fit(X, y).score(X, y) > 0.9
