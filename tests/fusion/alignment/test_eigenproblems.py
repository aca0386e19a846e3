"""The solvers on covariances whose answers are known: ranks, ridges, directions, and what is kept with moments."""

import numpy as np
import pytest
import scipy.linalg

from barycenter.fusion.alignment import Joint, eigenproblems
from barycenter.fusion.alignment.eigenproblems import (
    cca,
    fix_signs,
    imputation_scores,
    joint,
    mean_variance,
    pair_correlations,
    pca,
    procrustes,
    shares,
    spectrum,
    stacked,
    units,
)
from barycenter.fusion.moments import Moments


def make_views(n=200, widths=(4, 3, 5), seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3)) * [3, 2, 1]
    return {
        name: (z @ rng.normal(size=(3, width)) + noise * rng.normal(size=(n, width))) * scale + scale
        for name, width, scale in zip("abc", widths, (1.0, 10.0, 0.1), strict=True)
    }


@pytest.fixture(scope="module")
def moments():
    return Moments.of(make_views(), "float64")


def pair(moments):
    return moments.select(["a", "b"])


@pytest.mark.parametrize("ridge", [0.0, 0.2, {"a": 0.1, "b": 0.4}])
@pytest.mark.parametrize("widths", [(4, 3, 5), (3, 4, 5), (4, 4, 5), (9, 12, 5)])
@pytest.mark.parametrize("dim", [1, 3])
def test_canonical_weights_are_those_of_the_generalised_eigenproblem(ridge, widths, dim):
    moments = pair(Moments.of(make_views(widths=widths), "float64"))
    ridges = ridge if isinstance(ridge, dict) else {"a": ridge, "b": ridge}
    lifted = {
        m: moments.block(m, m) + ridges[m] * mean_variance(moments, m) * np.eye(moments.dims[m]) for m in ("a", "b")
    }
    roots = {m: scipy.linalg.sqrtm(np.linalg.inv(lifted[m])).real for m in lifted}
    expected = np.linalg.svd(roots["a"] @ moments.block("a", "b") @ roots["b"], compute_uv=False)[:dim]
    found = cca(moments, ridge, dim)
    for m in lifted:
        assert found[m].shape == (moments.dims[m], dim)
        np.testing.assert_allclose(found[m].T @ lifted[m] @ found[m], np.eye(dim), atol=1e-7)
    np.testing.assert_allclose(found["a"].T @ moments.block("a", "b") @ found["b"], np.diag(expected), atol=1e-7)


def test_there_are_no_more_canonical_components_than_the_smaller_input_has(moments):
    assert {m: block.shape for m, block in cca(pair(moments), 0.1, 10).items()} == {"a": (4, 3), "b": (3, 3)}


@pytest.mark.parametrize("values", [[1.0, 0.9, 0.8], [1.0, 0.9, 1e-5], [1.0, 1e-6, 1e-7], [1e-5, 1e-6, 1e-7]])
@pytest.mark.parametrize("turned", [False, True])
def test_singular_vectors_are_exact_for_small_values_too(values, turned):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 9)))[0] for size in (9, 12))
    matrix = left * (values + [1e-9] * 6) @ right.T
    found = eigenproblems._leading_pairs(matrix.T if turned else matrix, 3)
    for vectors in found:
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-9)
    first, second = found[::-1] if turned else found
    np.testing.assert_allclose(first.T @ matrix @ second, np.diag(values), rtol=1e-9, atol=1e-15)


def test_signs_are_those_of_the_largest_entry_of_the_first_input_that_has_one():
    first = np.array([[1.0, -0.1], [-3.0, 0.2]])
    fixed = fix_signs({"z": np.zeros((2, 2)), "a": first, "b": np.ones((1, 2))})
    np.testing.assert_array_equal(fixed["a"], first * [-1, 1])
    np.testing.assert_array_equal(fixed["b"], [[-1, 1]])
    partly = fix_signs({"a": np.array([[-2.0], [0.0]]), "b": np.ones((2, 1))})
    np.testing.assert_array_equal(np.hstack([partly["a"], partly["b"]]), [[2, -1], [0, -1]])
    half = fix_signs({"a": np.array([[-0.5, 0.0, 0.5]]), "b": np.ones((1, 3))})
    np.testing.assert_array_equal(half["b"], [[-1, 1, 1]])
    nothing = {"z": np.zeros((2, 2))}
    np.testing.assert_array_equal(fix_signs(nothing)["z"], 0)


def dense(moments, gamma, inertia, ridge):
    """The two matrices of the joint problem, written down as in its docstring."""
    names, mean = moments.names, np.mean([inertia[m] for m in moments.names])
    blocks = []
    for m in names:
        c, t = moments.block(m, m), mean_variance(moments, m)
        eye, share = np.eye(len(c)), inertia[m] / mean
        blocks.append((1 - gamma) * (c + ridge * t * eye) + gamma * np.trace(c) / share * eye)
    left = stacked(moments, names, names)
    start = 0
    for m in names:
        stop = start + moments.dims[m]
        left[start:stop, start:stop] += (1 - gamma) * ridge * mean_variance(moments, m) * np.eye(stop - start)
        start = stop
    return left, scipy.linalg.block_diag(*blocks)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("inertia", [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 4.0, "b": 1.0, "c": 0.5}])
def test_joint_directions_solve_the_generalised_eigenproblem(moments, gamma, inertia):
    left, right = dense(moments, gamma, inertia, 0.1)
    vectors = scipy.linalg.eigh(left, right)[1]
    found = joint(moments, gamma, inertia, 0.1, 4)
    share = shares(inertia)
    stacked_weights = np.vstack([found[m] * share[m] for m in moments.names])
    for k in range(4):
        mine, theirs = stacked_weights[:, k], vectors[:, -1 - k]
        scale = (mine @ theirs) / (theirs @ theirs)
        np.testing.assert_allclose(mine, scale * theirs, atol=1e-6 * np.abs(mine).max())
        np.testing.assert_allclose(mine @ right @ mine, 1 / len(moments.names), rtol=1e-6)


def test_joint_directions_can_be_sought_among_leading_ones(moments):
    inertia = dict.fromkeys("abc", 1.0)
    found = joint(moments, 0.0, inertia, 0.1, 3, leading=2)
    for m in moments.names:
        basis = spectrum(moments, m).leading(2).vectors
        np.testing.assert_allclose(basis @ (basis.T @ found[m]), found[m], atol=1e-10)
    assert all(block.shape[1] == 3 for block in found.values())
    assert joint(moments, 0.0, inertia, 0.1, 50)["a"].shape == (4, 12)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_target_draws_directions_to_what_predicts_it(moments, share):
    views = make_views()
    y = views["a"][:, :1] - views["a"].mean(axis=0)[:1]
    target = eigenproblems.Supervision(
        {m: (v - v.mean(axis=0)).T @ y / 199 for m, v in views.items()}, float(y.var(ddof=1)), share, 0.01
    )
    inertia = dict.fromkeys("abc", 1.0)
    found = joint(moments, 1.0, inertia, 0.1, 2, supervision=target)
    plain = joint(moments, 1.0, inertia, 0.1, 2)
    score = sum((views[m] - views[m].mean(axis=0)) @ found[m] for m in views) / 3
    r2 = np.corrcoef(score[:, 0], y[:, 0])[0, 1] ** 2
    if share == 0:
        for m in views:
            np.testing.assert_allclose(np.abs(found[m]), np.abs(plain[m]), rtol=1e-5, atol=1e-8)
    if share == 0.999:
        assert r2 > 0.98


def test_directions_with_a_target_solve_the_eigenproblem_of_principal_covariates():
    rng = np.random.default_rng(4)
    values, vectors = np.array([9.0, 4.0, 2.0, 1.0, 0.5]), np.linalg.qr(rng.normal(size=(5, 5)))[0]
    cross, total = rng.normal(size=(5, 1)), values.sum()
    matrix = vectors @ np.diag(values) @ vectors.T
    root = np.linalg.inv(scipy.linalg.sqrtm(matrix + 0.2 * total / 5 * np.eye(5)))
    shares, mixing = np.linalg.eigh(0.6 * matrix / total + 0.4 / 3.0 * (root @ cross @ cross.T @ root))
    target = eigenproblems.Supervision({}, 3.0, 0.4, 0.2)
    found = eigenproblems._covariate_directions(values, vectors, cross, target, 3)
    assert found.shape == (5, 3)
    for k in range(3):
        expected = root @ mixing[:, -1 - k]
        expected *= np.sqrt(shares[-1 - k] * total / (expected @ matrix @ expected))
        np.testing.assert_allclose(found[:, k], np.sign(found[:, k] @ expected) * expected, rtol=1e-8)


def test_a_direction_without_variance_gets_no_weight_whatever_it_would_predict():
    target = eigenproblems.Supervision({}, 1.0, 0.9, 0.1)
    found = eigenproblems._covariate_directions(np.array([0.0, 2.0]), np.eye(2), np.array([[1.0], [0.0]]), target, 2)
    assert np.isfinite(found).all()
    assert not found[0].any()
    assert found[1].any()


def test_variances_that_rounding_left_below_zero_count_as_none():
    target = eigenproblems.Supervision({}, 1.0, 0.5, 1e-18)
    cross = np.array([[0.0], [0.5], [1.0]])
    found = [
        eigenproblems._covariate_directions(np.array([low, 1.0, 2.0]), np.eye(3), cross, target, 3)
        for low in (-1e-17, 0.0)
    ]
    assert np.isfinite(found[0]).all()
    np.testing.assert_allclose(*found, atol=1e-12)


def test_principal_directions(moments):
    for m, block in pca(moments, 2).items():
        values, vectors = np.linalg.eigh(moments.block(m, m))
        np.testing.assert_allclose(np.abs(block), np.abs(vectors[:, ::-1][:, :2]), atol=1e-8)
        assert (block[np.abs(block).argmax(axis=0), [0, 1]] > 0).all()
        assert values[-1] > 0


def consensus_gap(moments, weights):
    """Sum of squared distances between the aligned inputs, over their number of pairs."""
    names = moments.names
    total = 0.0
    for a in names:
        for b in names:
            if a < b:
                own = weights[a].T @ moments.block(a, a) @ weights[a]
                other = weights[b].T @ moments.block(b, b) @ weights[b]
                total += np.trace(own) + np.trace(other) - 2 * np.trace(weights[a].T @ moments.block(a, b) @ weights[b])
    return total


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_procrustes_rotations_bring_inputs_together_as_no_others_do(moments, names):
    chosen = moments.select(list(names))
    found, base = procrustes(chosen, 3), pca(chosen, 3)
    for m in names:
        np.testing.assert_allclose(np.trace(found[m].T @ chosen.block(m, m) @ found[m]), 3, rtol=1e-6)
        scale = np.sqrt(3 / np.trace(base[m].T @ chosen.block(m, m) @ base[m]))
        rotation = base[m].T @ found[m] / scale
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-8)
    best = consensus_gap(chosen, found)
    rng = np.random.default_rng(0)
    for _ in range(30):
        turned = dict(found)
        turned[names[0]] = found[names[0]] @ scipy.linalg.expm(0.1 * (lambda q: q - q.T)(rng.normal(size=(3, 3))))
        assert consensus_gap(chosen, turned) > best
    total = sum(found[a].T @ chosen.block(a, b) @ found[b] for a in names for b in names)
    if names == "ab":
        shared = found["a"].T @ chosen.block("a", "b") @ found["b"]
        np.testing.assert_allclose(shared, np.diag(np.diag(shared)), atol=1e-9 * np.abs(shared).max())
        assert (np.diff(np.diag(shared)) < 0).all()
    if names == "abc":
        np.testing.assert_allclose(total, np.diag(np.diag(total)), atol=1e-6 * np.abs(total).max())
        assert (np.diff(np.diag(total)) < 0).all()


def test_procrustes_turns_until_every_input_agrees_with_the_others():
    moments = Moments.of(make_views(60, noise=8.0), "float64")
    found = procrustes(moments, 3)
    for a in "abc":
        others = sum(moments.block(a, b) @ found[b] for b in "abc" if b != a)
        shared = found[a].T @ others
        np.testing.assert_allclose(shared, shared.T, atol=1e-6 * np.abs(shared).max())


def test_pair_correlations(moments):
    rng = np.random.default_rng(0)
    weights = {m: rng.normal(size=(d, 2)) for m, d in moments.dims.items()}
    views = make_views()
    aligned = {m: views[m] @ weights[m] for m in views}
    for names in (["a", "b"], ["a", "b", "c"]):
        pairs = [(a, b) for a in names for b in names if a < b]
        expected = [np.mean([np.corrcoef(aligned[a][:, k], aligned[b][:, k])[0, 1] for a, b in pairs]) for k in (0, 1)]
        np.testing.assert_allclose(pair_correlations(moments.select(names), weights), expected, atol=1e-10)
        for scale in (1e-9, 1e9):
            scaled = {m: block * scale for m, block in weights.items()}
            np.testing.assert_allclose(pair_correlations(moments.select(names), scaled), expected, atol=1e-10)
    for small, share in ((1e-10, 1), (1e-13, 0), (0, 0)):  # beside the other component
        beside = weights | {"b": weights["b"] * [1, small]}
        whole = pair_correlations(pair(moments), weights)
        np.testing.assert_allclose(pair_correlations(pair(moments), beside), whole * [1, share], atol=1e-6)
    assert pair_correlations(moments.select(["a"]), weights).shape == (0,)


def test_imputation_scores_are_the_shares_of_held_out_variance_explained():
    views = make_views(300)
    train, held = (
        Moments.of({m: v[rows] for m, v in views.items()}, "float64") for rows in (slice(200), slice(200, None))
    )
    ridges = (0.01, 1.0)
    expected = []
    for ridge in ridges:
        each = []
        for name in "abc":
            others = [m for m in "abc" if m != name]
            lifted = stacked(train, others, others) + ridge * np.diag(units(train, others))
            b = np.linalg.solve(lifted, stacked(train, others, [name]))
            cross, own = stacked(held, others, [name]), stacked(held, others, others)
            explained = 2 * np.trace(b.T @ cross) - np.trace(b.T @ own @ b)
            each.append(explained / np.trace(held.block(name, name)))
        expected.append(np.mean(each))
    np.testing.assert_allclose(imputation_scores(train, held, ridges), expected, rtol=1e-6)
    np.testing.assert_array_equal(imputation_scores(train.select(["a"]), held.select(["a"]), ridges), [0, 0])


def test_nothing_that_was_kept_outlives_new_rows():
    views = make_views()
    moments = Moments.of({m: v[:100] for m, v in views.items()}, "float64")
    before = spectrum(moments, "a").values
    moments.update({m: v[100:] for m, v in views.items()})
    whole = Moments.of(views, "float64")
    np.testing.assert_allclose(spectrum(moments, "a").values, spectrum(whole, "a").values, rtol=1e-9)
    assert not np.allclose(before, spectrum(moments, "a").values)


def test_an_input_is_filled_in_at_its_own_ridge():
    from barycenter.fusion.alignment.imputation import Imputer
    from barycenter.fusion.moments import FoldMoments

    views = make_views()
    folds = FoldMoments.of(views, precision="float64")
    plain = Joint(dim=4, regularization=0.1).fit_moments(folds)
    own = Joint(dim=4, regularization=0.1, fill_ridges={"b": 2.0}).fit_moments(folds)
    for present in (["a"], ["a", "c"]):
        given = {m: views[m] for m in present}
        filled = Imputer(folds.total, 0.1).impute(given)
        filled["b"] = Imputer(folds.total, 2.0).impute(given)["b"]
        np.testing.assert_allclose(own.fuse(given), own.fuse(filled), atol=1e-8)
        assert not np.allclose(own.fuse(given), plain.fuse(given), atol=1e-3)
    np.testing.assert_allclose(own.fuse(views), plain.fuse(views), atol=1e-10)
    with pytest.raises(ValueError, match="fill_ridges names q; the inputs are a, b, c"):
        Joint(fill_ridges={"q": 1.0}).fit_moments(folds)
