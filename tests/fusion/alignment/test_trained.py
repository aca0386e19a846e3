import warnings

import numpy as np
import pytest
import torch

from barycenter.fusion.alignment import CCA, Autoencoder, Contrastive, Joint
from barycenter.fusion.alignment.network_training import batches_of, train_alignment_network
from barycenter.fusion.alignment.networks import AutoencoderNet, ContrastiveNet, LearnedFeatures, Projection, ViewBatch
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.training.context import Checkpoint, LocalContext
from barycenter.fusion.training.loop import TrainingSettings


def make_views(n=600, seed=0):
    """Three inputs of one latent, the second through a nonlinearity that a linear map cannot undo."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    mix = np.random.default_rng(1).normal(size=(2, 6))
    return {
        "a": (z @ mix + 0.1 * rng.normal(size=(n, 6))).astype(np.float32),
        "b": (np.stack([z[:, 0] ** 2, np.abs(z[:, 1]), z[:, 0] * z[:, 1]], 1) + 0.1 * rng.normal(size=(n, 3))).astype(
            np.float32
        ),
    }


def small(kind, **params):
    settings = {"dim": 2, "width": 32, "epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "feature_dropout": 0.0}
    return kind(**{**settings, **params})


def take(views, rows):
    return {name: values[rows] for name, values in views.items()}


def hits(alignment, views):
    a, b = alignment.transform(views).values()
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    scores = a @ b.T
    return ((scores > np.diag(scores)[:, None]).sum(axis=1) < 10).mean()


def test_contrastive_finds_pairs_that_its_linear_start_cannot():
    views, fresh = make_views(), make_views(300, seed=5)
    learned = small(Contrastive, epochs=12).fit(views)
    linear = CCA(dim=2).fit(views)
    shuffled = small(Contrastive, epochs=12).fit(views | {"b": views["b"][np.random.default_rng(2).permutation(600)]})
    assert min(learned.history_) < learned.history_[0] - 0.5
    assert hits(learned, fresh) > hits(linear, fresh) + 0.2
    assert hits(learned, fresh) > hits(shuffled, fresh) + 0.3


def test_the_autoencoder_reconstructs_better_than_its_linear_start_and_encodes_any_subset():
    views, fresh = make_views(), make_views(300, seed=5)
    learned = small(Autoencoder, patience=10).fit(views)
    assert min(learned.history_) < 0.9 * learned.history_[0]
    complete = learned.fuse(fresh)
    alone = learned.fuse({"a": fresh["a"]})
    assert np.mean([np.corrcoef(complete[:, i], alone[:, i])[0, 1] for i in range(2)]) > 0.8
    missing = {"a": fresh["a"].copy(), "b": fresh["b"]}
    missing["a"][::2] = np.nan
    fused = learned.fuse(missing)
    np.testing.assert_allclose(fused[1::2], complete[1::2], atol=1e-5)
    np.testing.assert_allclose(fused[::2], learned.fuse({"b": fresh["b"][::2]}), atol=1e-5)


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
def test_the_start_is_the_linear_alignment(kind):
    """Untrained, a learner says what joint or cca says of the same rows."""
    views = make_views()
    folds = FoldMoments.of(views, 5)
    learner = small(kind, regularization=0.1).start(folds)
    method = Joint if kind is Autoencoder else CCA
    linear = method(dim=2, regularization=0.1).fit_moments(folds)
    for head, (name, values) in zip(learner.heads, views.items(), strict=True):
        out = head(torch.from_numpy(values)).detach().numpy()
        expected = linear.transform({name: values})[name]
        for i in range(2):
            assert abs(np.corrcoef(out[:, i], expected[:, i])[0, 1]) > 1 - 1e-6


def test_held_out_correlations_foretell_new_rows():
    learned = small(Contrastive, epochs=5).fit(make_views(1000))
    a, b = learned.transform(make_views(1000, seed=5)).values()
    fresh = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(learned.heldout_correlations_, fresh, atol=0.1)


def test_what_training_cannot_improve_stays_linear():
    """Nothing but noise beside the shared part: no epoch helps, and all rows give plain ridge CCA."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 2))
    views = {m: (z @ rng.normal(size=(2, 12)) + rng.normal(size=(60, 12))).astype(np.float32) for m in "ab"}
    learned = small(Contrastive, learning_rate=10.0, regularization=0.1, epochs=3).fit(views)
    assert int(np.argmin(learned.history_)) == 0
    linear = CCA(dim=2, regularization=0.1).fit(views)
    for name, values in linear.transform(views).items():
        for i in range(2):
            assert np.corrcoef(values[:, i], learned.transform(views)[name][:, i])[0, 1] > 1 - 1e-5


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
def test_the_seed_decides(kind):
    views = make_views(300)
    a, b, c = (small(kind, epochs=2, seed=s, feature_dropout=0.1).fit(views) for s in (1, 1, 2))
    assert np.array_equal(a.fuse(views), b.fuse(views))
    assert a.history_ == b.history_
    assert a.history_ != c.history_


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
def test_rows_that_lack_an_input_train_too(kind):
    views = make_views(400)
    views["b"][:150] = np.nan
    views["a"][350:] = np.nan
    a = small(kind, epochs=3).fit(views)
    assert a.n_ == 200
    assert np.isfinite(a.fuse(views)).all()
    assert np.isnan(a.transform(views)["b"][:150]).all()


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
def test_three_inputs_float16_and_fewer_rows_than_columns(kind):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 2))
    views = {name: (z @ rng.normal(size=(2, 50))).astype(np.float16) for name in "abc"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = small(kind, dim=3, epochs=2, regularization=0.1).fit(views)
    for names in ("a", "ab", "cb", "abc"):
        assert np.isfinite(a.fuse({name: views[name] for name in names})).all()


def interrupted(views, codes, rows, held, epochs):
    """A training of so many epochs, in one go or resumed halfway, from the same start."""

    def loop(context, count):
        torch.manual_seed(0)
        heads = [
            Projection(LearnedFeatures(np.zeros(v.shape[1]), 1.0, 8), np.eye(v.shape[1], 2)) for v in views.values()
        ]
        return train_alignment_network(
            context,
            ContrastiveNet(heads, 0.1, 0.2),
            TrainingSettings(epochs=count, patience=9, learning_rate=1e-3, weight_decay=0.0, seed=3),
            lambda epoch: batches_of(views, codes, rows, 32, [0, epoch]),
            lambda: batches_of(views, codes, held, 32),
            steps_per_epoch=4,
        )

    context = LocalContext()
    if epochs[0]:
        loop(context, epochs[0])
    return loop(context, epochs[1])


def test_a_resumed_training_is_the_one_that_never_stopped():
    views, codes = make_views(200), np.arange(200)
    rows, held = np.arange(150), np.arange(150, 200)
    whole = interrupted(views, codes, rows, held, (0, 4))
    parts = interrupted(views, codes, rows, held, (2, 4))
    assert whole.state == parts.state
    assert len(whole.state["history"]) == 5
    for key, values in whole.tensors.items():
        assert torch.equal(values, parts.tensors[key])


def test_the_contrastive_loss_is_clip_without_near_copies():
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32)) for _ in range(2))
    heads = [Projection(LearnedFeatures(np.zeros(3), 1.0, 4), np.eye(3)) for _ in range(2)]
    net = ContrastiveNet(heads, 0.1, 0.0).eval()
    loss = net(ViewBatch((x, y), torch.arange(8)))
    u, v = (torch.nn.functional.normalize(t - t.mean(dim=0), dim=1) for t in (x, y))
    scores, truth = u @ v.T / 0.1, torch.arange(8)
    expected = (
        torch.nn.functional.cross_entropy(scores, truth) + torch.nn.functional.cross_entropy(scores.T, truth)
    ) / 2
    torch.testing.assert_close(loss, expected)
    assert net(ViewBatch((x, y), torch.zeros(8, dtype=torch.int64))) == 0, "all rows are copies of each other"
    y[3] = torch.nan
    assert torch.isfinite(net(ViewBatch((x, y), torch.arange(8))))


def test_input_dropout_never_takes_everything():
    heads = [Projection(LearnedFeatures(np.zeros(2), 1.0, 4), np.eye(2)) for _ in range(3)]
    completions = {(p, q): np.eye(2) for p in range(3) for q in range(3) if p != q}
    net = AutoencoderNet(heads, completions, [np.eye(2)] * 3, 4, 0.9, 0.0)
    present = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    present[~present.any(dim=1), 0] = True
    kept = net.withheld(present)
    assert kept.any(dim=1).all()
    assert not (kept & ~present).any()
    assert kept.sum() < present.sum() / 2 + 250
    assert torch.equal(net.eval().withheld(present), present)


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"width": 0}, "width must be a whole number, at least 1"),
        ({"feature_dropout": 1.0}, "feature_dropout must be"),
    ],
)
def test_wrong_parameters(kind, params, message):
    with pytest.raises(ValueError, match=message):
        small(kind, **params).fit(make_views(50))


def test_one_input_is_enough_for_an_autoencoder():
    views = {"a": make_views(100)["a"]}
    learned = small(Autoencoder, epochs=2).fit(views)
    assert learned.fuse(views).shape == (100, 2)
    assert len(learned.heldout_correlations_) == 0


def test_too_few_rows_and_bad_ones_are_reported():
    with pytest.raises(ValueError, match="4 rows have every input"):
        small(Contrastive).fit(make_views(4))
    views = make_views(50)
    views["b"][7, 0] = np.inf
    with pytest.raises(ValueError, match="b: row 7 is partly NaN or infinite"):
        small(Autoencoder).fit(views)
    with pytest.raises(ValueError, match="fitted from views"):
        Autoencoder().fit_moments(FoldMoments.of(make_views(50)))


@pytest.mark.parametrize("kind", [Autoencoder, Contrastive])
def test_fitting_leaves_torchs_random_state_alone(kind):
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(60, 3)) for name in ("a", "b")}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kind(2, width=4, epochs=1).fit(views)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_first_loss_that_is_not_finite_is_said():
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(60, 3)).astype(np.float32) for name in ("a", "b")}
    alignment = Autoencoder(2, width=4, epochs=1)
    learner = alignment.start(alignment.inner(FoldMoments.of(views)))
    with torch.no_grad():
        learner.heads[0].weights.fill_(torch.nan)
    with pytest.raises(ValueError, match="loss on held-out rows is nan before any training"):
        train_alignment_network(
            LocalContext(),
            learner,
            alignment.settings(),
            lambda epoch: batches_of(views, np.arange(60), np.arange(60), 20, [epoch]),
            lambda: batches_of(views, np.arange(60), np.arange(60), 20),
            1,
        )


def test_an_epoch_that_diverged_is_never_the_best():
    alignment = Autoencoder(2, epochs=5)
    assert alignment.settings(Checkpoint(4, {}, {"history": [1.0, 0.5, float("nan"), 0.6]})).epochs == 1
