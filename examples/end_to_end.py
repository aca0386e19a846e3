"""The alignment inside a model of one's own, trained end to end: does it beat the frozen features?

    barycenter run examples/symbols/job.yaml
    python examples/end_to_end.py examples/symbols/out

The model takes the encoders' own vectors, projects, fills in and averages them as the job did, and classifies; at the
start it says what the linear head on the written features says. All of it is then trained on the training rows, and
both are scored on rows whose group neither has seen. What is printed is what came out, whichever won.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import barycenter.fusion.alignment as alignments
from barycenter.fusion.dataset import FusedRows
from barycenter.fusion.dataset.schema import Manifest, array_to_vectors
from barycenter.fusion.heads import LinearHead
from barycenter.fusion.splits import split_rows, stable_hash

LABEL, GROUP, SEEDS, EPOCHS = "label", "base", 3, 60


class Model(nn.Module):
    """Projections, average and classifier in one."""

    def __init__(self, fuse: nn.Module, start: LinearHead) -> None:
        super().__init__()
        slope, offset = start.scores_.slope, start.scores_.offset
        self.fuse = fuse
        self.head = nn.Linear(*start.coef_.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy((start.coef_ * slope).T))
            self.head.bias.copy_(torch.from_numpy(start.intercept_ * slope + offset))

    def forward(self, views: dict[str, Tensor]) -> Tensor:
        """Logits of rows whose missing inputs are NaN."""
        logits: Tensor = self.head(self.fuse(views))
        return logits


def main(out: str) -> None:
    """Compares the two on the output of a run."""
    manifest = Manifest.read(f"{out}/manifest.json")
    alignment = alignments.load(f"{out}/alignment/{manifest.alignment_id}")
    views, fused, labels, groups = rows(out, manifest)
    test = split_rows(groups, test_fraction=0.2) == "test"
    average = (manifest.average["method"], manifest.average.get("weights"))
    names, target = np.unique(labels, return_inverse=True)
    train = np.flatnonzero(~test)
    frozen = LinearHead().fit(fused[train], target[train], groups=[groups[row] for row in train])
    base = frozen.score(fused[test], target[test])
    print(f"{len(train)} training rows, {test.sum()} test rows, {len(names)} classes")
    print(f"frozen features, linear head   {base:.4f}")
    gains = []
    for seed in range(SEEDS):
        part = (take(views, train), fused[train], target[train], [groups[row] for row in train])
        model, epochs = trained(lambda: alignment.as_module(*average).trainable(), *part, seed)
        with torch.no_grad():
            score = float((model(take(views, np.flatnonzero(test))).argmax(1).numpy() == target[test]).mean())
        gains.append(100 * (score - base))
        print(f"end to end, seed {seed}             {score:.4f}  ({epochs} epochs)")
    mean, deviation = np.mean(gains), np.std(gains, ddof=1)
    noise = 100 * np.sqrt(2 * base * (1 - base) / test.sum())
    verdict = "beats" if mean > noise else "does worse than" if mean < -noise else "is no better than"
    print(f"end to end {verdict} frozen features here: {mean:+.2f} points (sd over seeds {deviation:.2f}, ")
    print(f"one standard error of such a difference on so few test rows is about {noise:.1f})")


def rows(out: str, manifest: Manifest) -> tuple[dict[str, Tensor], Any, Any, list[str]]:
    """The encoders' vectors (NaN where missing), the written features, labels and groups of the labeled rows."""
    written = FusedRows(out, columns=[manifest.key, "fused", LABEL, GROUP]).read()
    shards = manifest.shards
    place: dict[str, int] = {}
    views = {}
    for name, entry in manifest.inputs.items():
        folder = f"{out}/embeddings/{name}/{entry['embedding_id']}"
        table = pa.concat_tables([pq.read_table(f"{folder}/{shard}.parquet") for shard in shards])
        vectors = np.array(array_to_vectors(table.column("vector")))
        vectors[~table.column("ok").to_numpy()] = np.nan
        for row, key in enumerate(table.column("key").to_pylist()):
            place.setdefault(key, row)
        views[name] = vectors
    labeled = [row for row, label in enumerate(written[LABEL]) if label]
    order = [place[written["key"][row]] for row in labeled]
    labels = np.array([written[LABEL][row] for row in labeled])
    groups = [str(written[GROUP][row] or written["key"][row]) for row in labeled]
    tensors = {name: torch.from_numpy(vectors[order]) for name, vectors in views.items()}
    return tensors, written["fused"].numpy()[labeled], labels, groups


def trained(
    make: Any, views: dict[str, Tensor], fused: Any, target: Any, groups: list[str], seed: int
) -> tuple[Model, int]:
    """Trains on nine tenths of the groups to see after how many epochs (perhaps none) the rest is best, then on all."""
    out = stable_hash(groups, f"stop {seed}") < np.uint64(0.1 * 2.0**64)
    learn, stop = np.flatnonzero(~out), np.flatnonzero(out)
    losses = []
    model = Model(make(), LinearHead().fit(fused[learn], target[learn], groups=[groups[row] for row in learn]))
    for _ in descent(model, take(views, learn), target[learn], EPOCHS, seed):
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(model(take(views, stop)), torch.from_numpy(target[stop]))))
    epochs = int(np.argmin(losses))
    model = Model(make(), LinearHead().fit(fused, target, groups=groups))
    for _ in descent(model, views, target, epochs, seed):
        pass
    return model, epochs


def descent(model: Model, views: dict[str, Tensor], target: Any, epochs: int, seed: int) -> Iterator[int]:
    """Yields before the first epoch and after every one."""
    torch.manual_seed(seed)
    groups = [{"params": model.fuse.parameters(), "lr": 1e-4}, {"params": model.head.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    y = torch.from_numpy(target)
    yield 0
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(y)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(take(views, batch)), y[batch]).backward()
            optimizer.step()
        yield epoch


def take(views: dict[str, Tensor], index: Any) -> dict[str, Tensor]:
    """Some rows of every input."""
    return {name: values[index] for name, values in views.items()}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "examples/symbols/out")
