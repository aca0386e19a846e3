import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.moments import FoldMoments, Moments, merge_all
from barycenter.fusion.moments.sums import Sums


def make_views(n=600, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 5)) * [1, 10, 0.1, 3, 1] + 2
    b = a @ rng.normal(size=(5, 3)) + rng.normal(size=(n, 3))
    return {"a": a.astype(dtype), "b": b.astype(dtype)}


def scaled_error(found, expected):
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    return np.abs((found - expected) / scale).max()


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-10), ("float32", 2e-6)])
def test_equals_numpy_covariance(precision, tolerance):
    views = make_views(20_000)
    moments = Moments.of(views, precision=precision)
    whole = np.hstack(list(views.values()))
    assert scaled_error(moments.cov, np.cov(whole.T)) < tolerance
    np.testing.assert_allclose(moments.mean, whole.mean(axis=0), atol=1e-6)
    assert moments.n == 20_000


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_hundred_unequal_parts_merge_in_any_order(seed):
    rng = np.random.default_rng(seed)
    views = make_views(3000, seed=seed % 1000)
    cuts = np.sort(rng.choice(np.arange(1, 3000), 99, replace=False))
    for precision, whole_tolerance in (("float64", 1e-10), ("float32", 2e-6)):
        parts = [
            Moments.of(dict(zip(views, rows, strict=True)), precision)
            for rows in zip(*(np.split(v, cuts) for v in views.values()), strict=True)
        ]
        forward = merge_all(parts)
        shuffled = merge_all([parts[i] for i in rng.permutation(100)])
        exact = np.cov(np.hstack(list(views.values())).T)
        assert scaled_error(forward.cov, shuffled.cov) < 1e-12
        assert scaled_error(forward.cov, exact) < whole_tolerance
        again = merge_all(parts)
        assert np.array_equal(forward.cov, again.cov)
        assert np.array_equal(forward.mean, again.mean)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 2e-6)])
def test_large_means_cost_no_accuracy(precision, tolerance):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30_000, 6)) + 1000
    moments = Moments.of({"x": values}, precision=precision)
    assert scaled_error(moments.cov, np.cov(values.T)) < tolerance
    single = values.astype(np.float32)
    moments = Moments.of({"x": single}, precision=precision)
    assert scaled_error(moments.cov, np.cov(single.astype(np.float64).T)) < tolerance


def marginal(moments, name):
    """Count, mean and covariance of one input over all rows that have it."""
    columns, joint = moments.columns[name], moments._joint
    own = Sums(joint.n, joint.mean[columns].copy(), joint.m2[columns, columns].copy())
    own.add(moments._partial[name])
    return own.n, own.mean, own.cov


def test_missing_rows_count_in_the_marginals_only():
    views = make_views(100)
    views["b"][:30] = np.nan
    moments = Moments.of(views, precision="float64")
    assert moments.n == 70
    np.testing.assert_allclose(moments.mean[:5], views["a"][30:].mean(axis=0))
    n, mean, cov = marginal(moments, "a")
    assert n == 100
    np.testing.assert_allclose(mean, views["a"].mean(axis=0))
    np.testing.assert_allclose(cov, np.cov(views["a"].T), rtol=1e-9)
    assert marginal(moments, "b")[0] == 70


def test_an_absent_name_is_missing():
    views = make_views(50)
    moments = Moments({"a": 5, "b": 3}, "float64")
    moments.update({"a": views["a"]})
    assert moments.n == 0
    assert marginal(moments, "a")[0] == 50
    assert marginal(moments, "b")[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_partly_broken_row_is_named(value):
    views = make_views(9000)
    views["b"][8500, 1] = value
    with pytest.raises(ValueError, match=r"b: row 8500 is partly NaN or infinite"):
        Moments.of(views)
    with pytest.raises(ValueError, match="b: row 8500 is partly"):
        FoldMoments.of(views)


def test_an_infinite_row_is_not_a_missing_one():
    views = make_views(10)
    views["a"][4] = np.inf
    with pytest.raises(ValueError, match="a: row 4"):
        Moments.of(views)


def test_huge_finite_values_are_not_broken():
    values = np.full((4, 3), 3e38, dtype=np.float32)
    values[0] = 0
    moments = Moments.of({"x": values}, precision="float64")
    np.testing.assert_allclose(moments.cov, np.cov(values.T.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(Moments.of({"x": values}).cov, moments.cov, rtol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="differ in rows"):
        Moments.of({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="shape"):
        Moments.of({"a": np.zeros(3)})
    with pytest.raises(ValueError, match="unknown input"):
        Moments({"a": 2}).update({"c": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="cannot merge"):
        Moments({"a": 2}).merge(Moments({"a": 3}))
    with pytest.raises(ValueError, match="no inputs"):
        Moments.of({})


def test_float16_and_integers_are_accepted():
    views = {"a": np.arange(12, dtype=np.float16).reshape(6, 2), "b": np.arange(6).reshape(6, 1)}
    np.testing.assert_allclose(Moments.of(views).cov, np.cov(np.hstack(list(views.values())).T.astype(float)))


def test_merge_leaves_both_sides_alone():
    a, b = Moments.of(make_views(20)), Moments.of(make_views(30, seed=1))
    before = a.cov.copy()
    assert a.merge(b).n == 50
    assert a.n == 20
    assert np.array_equal(a.cov, before)


def test_leave_one_out_equals_the_other_rows():
    views = make_views(500)
    groups = np.arange(500) // 3
    folds = FoldMoments.of(views, 5, groups, precision="float64")
    from barycenter.fusion.splits import fold_of

    number = fold_of(groups, 5)
    for k, (held, train) in enumerate(zip(folds, folds.leave_one_out(), strict=True)):
        assert held.n == (number == k).sum()
        other = Moments.of({m: v[number != k] for m, v in views.items()}, precision="float64")
        assert scaled_error(train.cov, other.cov) < 1e-11
    assert folds.total.n == 500


def test_unbalanced_folds_lose_nothing():
    rng = np.random.default_rng(0)
    big, small = rng.normal(size=(5000, 3)) * 1e6, rng.normal(size=(20, 3)) * 1e-3
    folds = FoldMoments([Moments.of({"x": big}, "float64"), Moments.of({"x": small}, "float64")])
    np.testing.assert_allclose(folds.leave_one_out()[0].cov, np.cov(small.T), rtol=1e-10)


def test_groups_must_fit_the_rows():
    with pytest.raises(ValueError, match="3 groups for 10 rows"):
        FoldMoments.of(make_views(10), groups=[1, 2, 3])


def test_streaming_in_steps_gives_the_same_folds():
    views = make_views(300)
    whole = FoldMoments.of(views, 3, precision="float64")
    steps = FoldMoments([Moments({"a": 5, "b": 3}, "float64") for _ in range(3)])
    for start in range(0, 300, 70):
        steps.update({m: v[start : start + 70] for m, v in views.items()}, first=start)
    for a, b in zip(whole, steps, strict=True):
        assert a.n == b.n
        assert scaled_error(a.cov, b.cov) < 1e-12


def test_select_keeps_the_chosen_blocks():
    moments = Moments.of(make_views(40), precision="float64")
    chosen = moments.select(["b", "a"])
    assert chosen.names == ("b", "a")
    np.testing.assert_array_equal(chosen.block("a", "b"), moments.block("a", "b"))


def test_save_and_load_are_exact(tmp_path):
    views = make_views(100)
    views["b"][:7] = np.nan
    moments = Moments.of(views)
    moments.save(tmp_path / "m.safetensors")
    back = Moments.load(tmp_path / "m.safetensors")
    assert back.dims == moments.dims
    assert np.array_equal(back.cov, moments.cov)
    assert np.array_equal(marginal(back, "a")[2], marginal(moments, "a")[2])
    folds = FoldMoments.of(views, 3)
    folds.save(tmp_path / "f.safetensors")
    for a, b in zip(folds, FoldMoments.load(tmp_path / "f.safetensors"), strict=True):
        assert np.array_equal(a.cov, b.cov)
    folds.save(tmp_path / "g.safetensors")
    assert (tmp_path / "f.safetensors").read_bytes() == (tmp_path / "g.safetensors").read_bytes()


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Moments.load(tmp_path / "x")
    import safetensors.numpy

    safetensors.numpy.save_file({"w": np.zeros(3)}, tmp_path / "y")
    with pytest.raises(ValueError, match="not barycenter-moments"):
        Moments.load(tmp_path / "y")
    with pytest.raises(ValueError, match="no fold moments"):
        FoldMoments.load(tmp_path / "y")


def test_nothing_to_merge():
    with pytest.raises(ValueError, match="no moments"):
        merge_all([])
