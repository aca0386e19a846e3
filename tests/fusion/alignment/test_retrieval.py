import numpy as np
import pytest

from barycenter.fusion.alignment import Joint, Sample, best_space
from barycenter.fusion.metrics import retrieval
from barycenter.fusion.moments import FoldMoments


def make_views(n=600, inputs=2):
    """Inputs that share a little and have much of their own."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 6))
    names = ("text", "image", "sound")[:inputs]
    return {
        m: shared @ rng.normal(size=(6, 30)) + 4 * rng.normal(size=(n, 8)) @ rng.normal(size=(8, 30))
        + 0.3 * rng.normal(size=(n, 30))
        for m in names
    }  # fmt: skip


@pytest.mark.parametrize("inputs", [2, 3])
def test_what_inputs_share_finds_more_than_what_they_are(inputs):
    views = make_views(inputs=inputs)
    train, test = ({m: v[rows] for m, v in views.items()} for rows in (slice(400), slice(400, None)))
    folds = FoldMoments.of(train)
    joint = Joint(dim=10).fit_moments(folds)
    space = best_space(folds, Sample(train), joint)
    assert "cca" in space.name
    found, written = space.transform(test), joint.transform(test)
    ours = retrieval(found["text"], found["image"], space.temperature)["r10"]
    assert ours > retrieval(written["text"], written["image"])["r10"] + 0.2
    assert ours - 0.15 < space.heldout_r10 <= 1


def test_the_alignment_itself_where_it_finds_as_much():
    rng = np.random.default_rng(0)
    views = {m: rng.normal(size=(300, 5)) for m in ("text",)}
    views["image"] = views["text"] @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    folds = FoldMoments.of(views)
    space = best_space(folds, Sample(views), Joint(dim=5).fit_moments(folds))
    assert space.name == "joint, as written"
    assert space.heldout_r10 > 0.9
