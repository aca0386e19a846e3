"""The contract: an all-NaN row or an absent name is a missing input, a partly NaN or infinite row raises by index."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter import CCA, PCA, AlignmentSearch, Autoencoder, Contrastive, Identity, Joint, KernelCCA, Procrustes
from barycenter.fusion.alignment import Sample, significance
from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.average import average
from barycenter.fusion.dataset.neighbors import NeighborIndex
from barycenter.fusion.evaluation.probe import probe
from barycenter.fusion.heads import LinearHead, NeuralHead
from barycenter.fusion.metrics import retrieval
from barycenter.fusion.moments import FoldMoments, Moments

N = 60
NAMES = ("text", "image")


def make_views(n=N, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    return {m: (z @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4))).astype(np.float32) for m in NAMES}


VIEWS = make_views()
LABELS = [str(int(value > 0)) for value in VIEWS["text"][:, 0]]
ALIGNMENTS = {
    "none": Identity(),
    "pca": PCA(2),
    "procrustes": Procrustes(2),
    "cca": CCA(2),
    "joint": Joint(2),
    "kernel-cca": KernelCCA(2, n_features=20),
    "autoencoder": Autoencoder(2, width=4, epochs=1),
    "contrastive": Contrastive(2, width=4, epochs=1),
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FITTED = {name: type(a)(**a.get_params()).fit(VIEWS) for name, a in ALIGNMENTS.items()}
HEAD = NeuralHead("gated", NAMES, hidden=4, epochs=1).fit(VIEWS["text"], np.array(LABELS), VIEWS)


def _probe(views):
    test = np.arange(N) % 3 == 0
    imputer = Imputer(Moments.of(VIEWS))
    return probe(views, FITTED["joint"].fuse, LABELS, None, ~test, test, imputer=imputer, dim=2)


TAKERS = {
    **{f"{name}.fit": lambda v, a=a: type(a)(**a.get_params()).fit(v) for name, a in ALIGNMENTS.items()},
    **{f"{name}.transform": lambda v, a=a: a.transform(v) for name, a in FITTED.items()},
    **{f"{name}.fuse": lambda v, a=a: a.fuse(v) for name, a in FITTED.items()},
    "Moments.of": Moments.of,
    "FoldMoments.of": FoldMoments.of,
    "average": average,
    "Imputer.impute": Imputer(Moments.of(VIEWS)).impute,
    "significance": lambda v: significance(CCA(2), v, permutations=19),
    "Sample.complete": lambda v: Sample(v).complete(),
    "AlignmentSearch": lambda v: AlignmentSearch().fit_moments(FoldMoments.of(VIEWS), Sample(v)),
    "probe": _probe,
    "NeuralHead.fit": lambda v: NeuralHead("mlp", NAMES, hidden=4, epochs=1).fit(VIEWS["text"], np.array(LABELS), v),
    "NeuralHead.predict_proba": lambda v: HEAD.predict_proba(VIEWS["text"], v),
    "as_module": lambda v: FITTED["joint"].as_module()({m: torch.from_numpy(x) for m, x in v.items()}),
}
MATRIX_TAKERS = {
    "LinearHead.fit": lambda X: LinearHead().fit(X, LABELS),
    "LinearHead.predict": LinearHead().fit(VIEWS["text"], LABELS).predict,
    "NeighborIndex.add": lambda X: NeighborIndex(4).add(X),
    "NeighborIndex.search": lambda X: NeighborIndex(4).search(X, 1),
    "retrieval": lambda X: retrieval(X, VIEWS["image"]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("taker", TAKERS)
@given(st.integers(0, N - 1), st.integers(0, 3), st.sampled_from([np.nan, np.inf, -np.inf]), st.sampled_from(NAMES))
@settings(max_examples=4, deadline=None)
def test_a_row_that_is_partly_nan_or_infinite_is_named(taker, row, column, value, name):
    views = {m: values.copy() for m, values in VIEWS.items()}
    views[name][row, column] = value
    with pytest.raises(ValueError, match=f"{name}: row {row} is partly NaN or infinite"):
        TAKERS[taker](views)


@pytest.mark.parametrize("taker", MATRIX_TAKERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_named(taker, value):
    X = VIEWS["text"].copy()
    X[17, 2] = value
    with pytest.raises(ValueError, match="row 17"):
        MATRIX_TAKERS[taker](X)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("taker", [name for name in TAKERS if name not in ("average", "as_module", "none.fit")])
def test_an_absent_name_is_an_all_nan_row(taker):
    views = {m: values.copy() for m, values in VIEWS.items()}
    views["image"][::4] = np.nan
    TAKERS[taker](views)


@pytest.mark.parametrize("name", FITTED)
def test_missing_inputs_fuse_the_same_whether_absent_or_nan(name):
    absent = FITTED[name].fuse({"text": VIEWS["text"]})
    masked = FITTED[name].fuse({"text": VIEWS["text"], "image": np.full_like(VIEWS["image"], np.nan)})
    assert np.array_equal(absent, masked)


CONTAINERS = {
    "list": lambda values: values.tolist(),
    "pandas": pd.DataFrame,
    "pandas nullable": lambda values: pd.DataFrame(values).astype("Float32"),
    "polars": pl.DataFrame,
    "torch": torch.from_numpy,
    "torch with gradient": lambda values: torch.from_numpy(values).requires_grad_(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", ["cca", "kernel-cca", "autoencoder"])
def test_fit_takes_what_transform_takes(name, kind):
    given_ = {m: CONTAINERS[kind](values) for m, values in VIEWS.items()}
    again = type(ALIGNMENTS[name])(**ALIGNMENTS[name].get_params()).fit(given_)
    np.testing.assert_allclose(again.fuse(given_), FITTED[name].fuse(VIEWS), atol=1e-5)


def test_pandas_missing_values_are_missing_rows():
    frame = pd.DataFrame(VIEWS["image"]).astype("Float32")
    frame.iloc[3] = pd.NA
    views = {"text": VIEWS["text"], "image": VIEWS["image"].copy()}
    views["image"][3] = np.nan
    fused = FITTED["joint"].fuse(views | {"image": frame})
    np.testing.assert_allclose(fused, FITTED["joint"].fuse(views), atol=1e-6)


def test_the_probe_takes_lists():
    figures = _probe(VIEWS)
    assert _probe({m: values.astype(np.float64).tolist() for m, values in VIEWS.items()})["n_test"] == figures["n_test"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["a", "b"]], "text: expected an .* array of numbers, got text such as 'a'"),
        ([[1.0, 2.0], [3.0]], "text: expected an .* array of numbers"),
        ([1.0, 2.0], r"text: expected an \(n, d\) array, got shape \(2,\)"),
        (np.zeros((3, 0)), "text: expected at least one column"),
        ([[1.0, None]], "text: expected an .* array of numbers, got list of object"),
        ("a crab", "text: expected an .* array of numbers, got text such as 'a crab'"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(values, message):
    for work in (Moments.of, PCA().fit, FITTED["joint"].transform, average):
        with pytest.raises(ValueError, match=message):
            work({"text": values})


def test_what_is_no_mapping_is_refused():
    for work in (Moments.of, FoldMoments.of, PCA().fit, KernelCCA().fit, FITTED["joint"].fuse, average):
        with pytest.raises(TypeError, match=r"expected \{input name: .* got ndarray"):
            work(VIEWS["text"])


@pytest.mark.parametrize("kind", [Moments, FoldMoments])
def test_a_refused_update_adds_nothing(kind):
    moments, whole = kind.of(VIEWS), kind.of(VIEWS)
    bad = {m: values.copy() for m, values in VIEWS.items()}
    bad["image"][-1, 0] = np.nan
    with pytest.raises(ValueError, match="image: row 59 is partly NaN"):
        moments.update(bad)
    total, expected = (m.total if kind is FoldMoments else m for m in (moments, whole))
    assert total.n == expected.n
    assert np.array_equal(total.cov, expected.cov)


def test_features_of_a_refused_update_add_nothing():
    alignment = FITTED["kernel-cca"]
    folds = alignment.feature_moments(VIEWS)
    bad = {m: values.copy() for m, values in VIEWS.items()}
    bad["image"][-1, 0] = np.inf
    with pytest.raises(ValueError, match="image: row 59 is partly NaN"):
        alignment.feature_moments(bad, into=folds)
    assert folds.total.n == N
