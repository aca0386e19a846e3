import json
import pickle

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


def test_a_merge_holds_the_rows_that_lack_an_input_too():
    one, other = make_views(20), make_views(30, seed=1)
    one["a"][:5], other["b"][:8] = np.nan, np.nan
    both = Moments.of(one, "float64").merge(Moments.of(other, "float64"))
    assert (both.n, both.count("a"), both.count("b")) == (37, 45, 42)
    everything = np.vstack([one["b"], other["b"][8:]])
    np.testing.assert_allclose(marginal(both, "b")[1], everything.mean(axis=0))


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


def test_new_rows_show_in_what_was_asked_for_before():
    views = make_views(300)
    folds = FoldMoments.of({m: v[:100] for m, v in views.items()}, 3, precision="float64")
    assert (folds.total.n, sum(train.n for train in folds.leave_one_out())) == (100, 200)
    assert folds.total is folds.total
    assert folds.leave_one_out() is folds.leave_one_out()
    folds.total.cache["kept"] = folds[0].cache["kept"] = True
    folds.update({m: v[100:] for m, v in views.items()}, first=100)
    assert folds[0].cache == {}
    assert folds.total.cache == {}
    whole = FoldMoments.of(views, 3, precision="float64")
    assert (folds.total.n, sum(train.n for train in folds.leave_one_out())) == (300, 600)
    assert scaled_error(folds.total.cov, whole.total.cov) < 1e-12
    assert scaled_error(folds.leave_one_out()[1].cov, whole.leave_one_out()[1].cov) < 1e-12


def test_what_is_kept_with_moments_stays_with_them():
    moments = Moments.of(make_views(40))
    moments.cache["kept"] = 1
    assert moments.copy().cache == moments.select(["a"]).cache == moments.merge(moments).cache == {}
    moments.cache.clear()
    for other in (moments.copy(), moments.with_cross({})):
        other.update(make_views(10, seed=1))
        assert (moments.n, other.n) == (40, 50)
        assert not np.array_equal(other.cov, moments.cov)


def test_a_bad_row_adds_nothing_to_any_fold():
    views = make_views(60)
    folds = FoldMoments.of(views, 4)
    broken = make_views(60)
    broken["b"][59, 2] = np.inf
    with pytest.raises(ValueError, match="b: row 159 is partly"):
        folds.update(broken, first=100)
    with pytest.raises(ValueError, match="59 groups for 60 rows"):
        folds.update(make_views(60), groups=range(59))
    assert [part.n for part in folds] == [part.n for part in FoldMoments.of(views, 4)]
    assert sum(part.count("b") for part in folds) == 60


def test_one_or_two_folds():
    views = make_views(50)
    assert FoldMoments.of(views, 1).leave_one_out() == []
    two = FoldMoments.of(views, 2)
    assert [train.n for train in two.leave_one_out()] == [two[1].n, two[0].n]
    with pytest.raises(ValueError, match="no folds"):
        FoldMoments([])


def test_folds_merge_and_are_chosen_fold_by_fold():
    first, second = (FoldMoments.of(make_views(90, seed=seed), 3) for seed in (0, 1))
    both = first.merge(second)
    assert [part.n for part in both] == [a.n + b.n for a, b in zip(first, second, strict=True)]
    assert (len(both), both.select(["b"]).total.names, both.select(["b"]).total.n) == (3, ("b",), 180)
    with pytest.raises(ValueError, match="shorter"):
        first.merge(FoldMoments.of(make_views(90), 2))


def test_blocks_means_counts_and_inputs_that_vary():
    views = make_views(50)
    views["a"][:20] = np.nan
    views["c"] = np.full((50, 2), 7.0)
    moments = Moments.of(views, "float64")
    complete = {m: v[20:] for m, v in views.items()}
    whole = np.cov(np.hstack(list(complete.values())).T)
    assert moments.columns == {"a": slice(0, 5), "b": slice(5, 8), "c": slice(8, 10)}
    np.testing.assert_allclose(moments.block("b", "a"), whole[5:8, :5], rtol=1e-9)
    for m, mean in moments.means.items():
        np.testing.assert_allclose(mean, complete[m].mean(axis=0))
    assert {m: moments.count(m) for m in views} == {"a": 30, "b": 50, "c": 50}
    assert moments.varying == ("a", "b")
    one = Moments.of({"a": np.ones((1, 2))})
    assert not one.cov.any()
    assert not one.block("a", "a").any()
    assert one.varying == ()


def test_other_pairs_of_the_same_rows():
    moments = Moments.of(make_views(50), "float64")
    other = np.arange(15.0).reshape(5, 3)
    found = moments.with_cross({("a", "b"): other})
    np.testing.assert_allclose(found.block("a", "b") * 49, other)
    np.testing.assert_allclose(found.block("b", "a") * 49, other.T)
    np.testing.assert_array_equal(found.block("a", "a"), moments.block("a", "a"))
    assert found.n == 50


def test_a_merge_is_as_exact_as_the_less_exact_side():
    single, double = (Moments.of(make_views(20), precision) for precision in ("float32", "float64"))
    assert [a.merge(b).precision for a in (single, double) for b in (single, double)] == ["float32"] * 3 + ["float64"]
    with pytest.raises(ValueError, match="precision must be 'float32' or 'float64', not 'half'"):
        Moments({"a": 2}, "half")


def test_moments_without_rows_are_saved_and_travel_as_their_widths(tmp_path):
    empty = Moments({"a": 300, "b": 2}, "float64")
    empty.save(tmp_path / "m")
    back = Moments.load(tmp_path / "m")
    assert (back.n, back.dims, back.precision, back.count("a")) == (0, empty.dims, "float64", 0)
    back.update({"a": np.eye(300), "b": np.ones((300, 2))})
    assert back.n == 300
    assert len(pickle.dumps(empty)) < 5000
    again = pickle.loads(pickle.dumps(empty.merge(back)))  # noqa: S301
    assert np.array_equal(again.cov, back.cov)


def test_a_file_of_another_version_is_refused():
    arrays = Moments.of(make_views(20)).to_arrays("x.")
    header = json.loads(arrays["x.header"].tobytes())
    assert header["format"] == "barycenter-moments"
    assert header["version"] == 1
    assert Moments.from_arrays(arrays, "x.").n == 20
    for change in ({"version": 2}, {"format": "other"}):
        arrays["x.header"] = np.frombuffer(json.dumps(header | change).encode(), np.uint8)
        with pytest.raises(ValueError, match="not barycenter-moments version 1"):
            Moments.from_arrays(arrays, "x.")


@pytest.mark.parametrize("largest", [1e80, 1e160])
def test_what_cannot_be_multiplied_names_the_largest_value(largest):
    small, large = np.ones((3, 2)), np.array([[0.0], [largest], [-largest / 10]])
    for views in ({"a": small, "b": large}, {"a": large, "b": small}):
        with pytest.raises(
            ValueError, match=rf"^values as large as {largest:.2g} cannot be multiplied".replace("+", r"\+")
        ):
            Moments.of(views)


def test_an_order_of_magnitude_below_that_they_can():
    values = np.array([[0.0], [1e74], [-1e73]])
    np.testing.assert_allclose(Moments.of({"a": values}).cov, np.cov(values.T).reshape(1, 1), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-13, 1e-18, 1e-30])
def test_small_values_lose_no_digits_in_single_precision(scale):
    values = (np.random.default_rng(0).normal(size=(500, 3)) * scale).astype(np.float32)
    found = Moments.of({"a": values, "still": np.ones((500, 1), np.float32)})
    assert scaled_error(found.block("a", "a"), np.cov(values.astype(np.float64).T)) < 2e-6
    assert not found.block("still", "a").any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_column_beside_others_is_exact(dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 4)).astype(dtype)
    values[:, 2] = 12345.678
    varying = Moments.of({"z": values[:, :1], "a": values[:, 1:]})
    assert varying.mean[2] == values[0, 2]
    assert not varying.cov[2].any()
    assert not varying.cov[:, 2].any()
    assert (np.diag(varying.cov)[[0, 1, 3]] > 0.9).all()


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
