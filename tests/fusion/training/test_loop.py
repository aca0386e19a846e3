import math

import pytest
import torch

from barycenter.fusion.training.context import Checkpoint, LocalContext
from barycenter.fusion.training.loop import EarlyStopping, train


def test_early_stopping_keeps_the_epoch_with_the_lowest_loss():
    module, stopping = torch.nn.Linear(1, 1), EarlyStopping(patience=2)
    for loss in (3.0, 1.0, math.nan, 1.0):
        assert not stopping.should_stop
        with torch.no_grad():
            module.weight.fill_(len(stopping.history))
        stopping.step(module, loss)
    assert stopping.should_stop
    assert stopping.best_epoch == 1
    stopping.restore_best(module)
    assert module.weight.item() == 1.0
    resumed = EarlyStopping(patience=2)
    resumed.load(Checkpoint(0, stopping.tensors(), {"history": stopping.history}))
    assert resumed.should_stop
    assert resumed.best_epoch == 1


def test_a_first_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="loss on held-out rows is inf before any training"):
        EarlyStopping(1).step(torch.nn.Linear(1, 1), math.inf)


def trained(context, steps, **options):
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    seen = []

    def batches(epoch):
        for number in range(3):
            seen.append((epoch, number))
            yield torch.randn(8, 3, generator=torch.Generator().manual_seed(10 * epoch + number))

    def loss(model, batch):
        return (torch.nn.functional.dropout(model(batch), 0.5) - batch.sum(dim=1, keepdim=True)).square().mean()

    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    train(context, module, optimizer, loss, batches, steps=steps, steps_per_epoch=3, seed=1, save_every=2, **options)
    return module, seen


def test_it_takes_exactly_the_steps_and_resumes_within_an_epoch():
    whole, seen = trained(LocalContext(), 7)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    context = LocalContext()
    trained(context, 5)
    assert context.checkpoint.step == 4
    resumed, _ = trained(context, 7)
    assert torch.equal(resumed.weight, whole.weight)


def test_checkpoints_of_an_earlier_training_are_left_alone():
    context = LocalContext()
    trained(context, 4)
    fresh, _ = trained(LocalContext(), 4)
    second, _ = trained(context, 4, first_checkpoint=10, extra_state={"found": 1})
    assert torch.equal(second.weight, fresh.weight)
    assert context.checkpoint.step == 14
    assert context.checkpoint.state == {"found": 1, "history": []}
