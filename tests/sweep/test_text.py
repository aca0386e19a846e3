"""A sample of the sweep over text encoders; ``python -m tests.sweep.supported_text`` tries all."""

import pytest

pytest.importorskip("sentence_transformers")
from tests.sweep import architectures, combinations

SAMPLE = [
    "albert", "bamba", "bart", "bert", "big_bird", "blenderbot", "clip", "deberta-v2", "distilbert", "esm", "flaubert",
    "fnet", "gpt2", "llama", "longformer", "mobilebert", "modernbert", "mt5", "qwen3", "rembert", "siglip", "t5",
    "xlnet",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_an_architecture_equals_the_library(name):
    (found,) = architectures.sweep([name])
    assert found.status == "equal", found


@pytest.mark.slow
def test_combinations_of_modules_equal_the_library():
    found = list(combinations.sweep(combinations.combinations()[::37]))
    assert len(found) > 20
    assert not [each for each in found if each.status != "equal"]
