"""A sample of the sweep over text encoders; ``python -m tests.sweep.supported_text`` tries all."""

from collections.abc import Iterator

import pytest
import torch

from tests.sweep import architectures, combinations

SAMPLE = [
    "bamba", "bart", "big_bird", "clip", "deberta-v2", "esm", "flaubert", "fnet",
    "gemma3", "gpt2", "gpt_neo", "llava", "mobilebert", "mt5", "xlnet",
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_an_architecture_equals_the_library(name):
    (found,) = architectures.sweep([name])
    assert found.status == "equal", found


@pytest.mark.slow
def test_combinations_of_modules_equal_the_library():
    found = list(combinations.sweep(combinations.pairwise()))
    assert len(found) >= 64
    assert not [each for each in found if each.status != "equal"]
