"""The sweep over picture encoders: a few by default, most of them where slow tests run."""

from collections import Counter

import pytest

from tests.sweep import tiny_vision, torchvision_models, vision
from tests.sweep.vision import DIFFERS, EQUAL, REFUSED

FEW = ["beit", "clip", "convnext", "cvt", "data2vec-vision", "dinov2", "ijepa", "pvt", "swin", "vit_mae", "vit_msn"]


def test_some_architectures_are_equal_to_the_library() -> None:
    found = list(vision.rows(FEW))
    assert {row.name: row.outcome for row in found} == dict.fromkeys(FEW, EQUAL), found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_architecture_of_transformers() -> None:
    found = list(vision.rows())
    counts = Counter(row.outcome for row in found)
    assert not [row for row in found if row.outcome == DIFFERS]
    assert counts[EQUAL] >= 0.9 * (counts[EQUAL] + counts[REFUSED])
    assert {row.name for row in found} == set(tiny_vision.architectures())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_small_architectures_of_torchvision() -> None:
    found = list(torchvision_models.rows())
    assert not [row for row in found if row.outcome in (DIFFERS, REFUSED)]
    assert sum(row.outcome == EQUAL for row in found) >= 30
