import numpy as np
import pytest
import torch

from barycenter.fusion.alignment import CCA, PCA, Autoencoder, Contrastive, Identity, Joint, KernelCCA, Procrustes


def make_views(inputs=2, n=200):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 3))
    names = ["text", "image", "sound"][:inputs]
    return {name: (shared @ rng.normal(size=(3, 5)) + rng.normal(size=(n, 5)) + 2).astype(np.float32) for name in names}


EVERY = [
    Identity(),
    PCA(3),
    Procrustes(3),
    CCA(3),
    Joint(3),
    KernelCCA(3, n_features=20, folds=2),
    Autoencoder(3, width=8, epochs=2),
    Contrastive(3, width=8, epochs=2),
]


def mask_some(views):
    rng = np.random.default_rng(1)
    present = rng.random((200, len(views))) < 0.6
    present[~present.any(axis=1), 0] = True
    masked = {m: np.where(present[:, i : i + 1], v, np.float32(np.nan)) for i, (m, v) in enumerate(views.items())}
    return masked, torch.from_numpy(present)


@pytest.mark.parametrize("alignment", EVERY, ids=lambda a: a.method)
@pytest.mark.parametrize("inputs", [2, 3])
def test_agrees_with_fuse(alignment, inputs):
    views = make_views(inputs)
    alignment.fit(views)
    masked, present = mask_some(views)
    weights = {name: i + 1.0 for i, name in enumerate(views)}
    for average, chosen in (("mean", None), ("weighted", weights), ("spherical", weights), ("posterior", None)):
        module = alignment.as_module(average, chosen)
        tensors = {name: torch.from_numpy(v) for name, v in masked.items()}
        expected = alignment.fuse(masked, average, chosen)
        np.testing.assert_allclose(module(tensors).numpy(), expected, atol=1e-5)
        filled = tuple(t.nan_to_num(7.0) for t in tensors.values())
        np.testing.assert_allclose(module(filled, present).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("alignment", [Joint(3), EVERY[-3], EVERY[-1]], ids=lambda a: a.method)
def test_gradients_reach_the_inputs_even_beside_missing_ones(alignment):
    views = make_views()
    module = alignment.fit(views).as_module()
    tensors = {name: torch.from_numpy(v[:4]).clone().requires_grad_() for name, v in views.items()}
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    module(tensors, present).square().sum().backward()
    for i, tensor in enumerate(tensors.values()):
        assert torch.isfinite(tensor.grad).all()
        assert ((tensor.grad.abs().sum(dim=1) > 0) == present[:, i]).all()


def test_nan_rows_do_not_poison_gradients():
    views = make_views()
    module = CCA(2).fit(views).as_module()
    text = torch.from_numpy(views["text"][:2]).clone().requires_grad_()
    image = torch.full((2, 5), torch.nan)
    module((text, image)).sum().backward()
    assert torch.isfinite(text.grad).all()


def test_a_row_with_nothing_is_nan():
    views = make_views()
    module = Joint(2).fit(views).as_module()
    out = module(tuple(torch.from_numpy(v[:2]) for v in views.values()), torch.tensor([[True, True], [False, False]]))
    assert torch.isfinite(out[0]).all()
    assert torch.isnan(out[1]).all()


def test_trainable_projections_learn_inside_a_model():
    views = make_views()
    tensors = {name: torch.from_numpy(v) for name, v in views.items()}
    frozen = Joint(3).fit(views).as_module()
    assert not list(frozen.parameters())
    module = Joint(3).fit(views).as_module().trainable()
    torch.testing.assert_close(module(tensors), frozen(tensors))
    model = torch.nn.ModuleDict({"fuse": module, "head": torch.nn.Linear(3, 1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    target = tensors["text"][:, :1] ** 2
    losses = []
    for _ in range(20):
        loss = ((model["head"](module(tensors)) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert not torch.allclose(module(tensors), frozen(tensors))
    assert set(module.state_dict()) == set(frozen.state_dict())


@pytest.mark.parametrize(
    ("alignment", "average"),
    [(Joint(3), "mean"), (Joint(3), "spherical"), (Joint(3), "posterior"), (EVERY[-2], "mean"), (EVERY[-1], "mean")],
    ids=lambda value: getattr(value, "method", value),
)
def test_exports(alignment, average):
    views = make_views()
    module = alignment.fit(views).as_module(average)
    tensors = tuple(torch.from_numpy(v) for v in views.values())
    present = torch.ones(200, 2, dtype=torch.bool)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        module, (tensors, present), dynamic_shapes=(({0: batch}, {0: batch}), {0: batch})
    ).module()
    present[::3, 0] = False
    some = tuple(t[:30] for t in tensors)
    torch.testing.assert_close(program(some, present[:30]), module(some, present[:30]))


@pytest.mark.parametrize("alignment", EVERY, ids=lambda a: a.method)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_fuse_far_from_zero_and_in_double_precision(alignment, dtype):
    views = {name: values.astype(dtype) + dtype(1e4) for name, values in make_views().items()}
    alignment.fit(views)
    masked = {
        name: np.where(np.arange(200)[:, None] % 3 == i, dtype(np.nan), v) for i, (name, v) in enumerate(views.items())
    }
    # The angles of random features are cosines of numbers of the size of the mean, in the type of the inputs.
    atol = 2e-3 if alignment.method == "kernel-cca" and dtype is np.float32 else 2e-5
    for average in ("mean", "posterior"):
        out = alignment.as_module(average)({name: torch.from_numpy(v) for name, v in masked.items()})
        expected = alignment.fuse(masked, average)
        assert out.dtype == (torch.float64 if dtype is np.float64 else torch.float32)
        np.testing.assert_allclose(out.numpy() - expected.mean(), expected - expected.mean(), atol=atol)


def test_a_row_that_is_partly_nan_is_named_and_poisons_an_exported_program():
    views = make_views()
    module = Joint(2).fit(views).as_module()
    tensors = tuple(torch.from_numpy(v[:4].copy()) for v in views.values())
    program = torch.export.export(module, (tensors,)).module()
    tensors[1][2, 0] = torch.nan
    with pytest.raises(ValueError, match="image: row 2 is partly NaN or infinite"):
        module(tensors)
    assert program(tensors).isnan().any(dim=1).tolist() == [False, False, True, False]
