"""A vector is a function of its input alone: the same bytes alone, in twos, shuffled, in any batch, on any threads."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from barycenter.fusion.encoders import EncoderSpec, Preprocessing, describe, load
from barycenter.fusion.encoders.base import Encoder
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.encoders.sentence_modules import by_rows, pool_tokens
from barycenter.fusion.encoders.text.encoder import TextEncoder, _filled, _rows_run_together
from barycenter.fusion.encoders.text.variable_length import equal_runs
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import SENTENCES, drawn, encoded, save_tokenizer

TEXTS = [*SENTENCES, "a", "a", "red sky", *(" ".join(["boat near a crab"] * n) for n in (2, 3, 3, 5, 8, 11))]
SIZES = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
SIZES |= {"max_position_embeddings": 80, "initializer_range": 0.3, "pad_token_id": 0}
CONFIGS = {
    "bert": hf.BertConfig(**SIZES),
    "roberta": hf.RobertaConfig(**SIZES),
    "electra": hf.ElectraConfig(**SIZES, embedding_size=24),
    "gpt2": hf.GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=80, initializer_range=0.3),
    "llama": hf.LlamaConfig(**{**SIZES, "hidden_size": 32, "num_attention_heads": 4}, num_key_value_heads=2),
    "qwen2": hf.Qwen2Config(**{**SIZES, "hidden_size": 32, "num_attention_heads": 4}, num_key_value_heads=2),
    "mistral": hf.MistralConfig(
        **{**SIZES, "hidden_size": 32, "num_attention_heads": 4}, num_key_value_heads=2, sliding_window=20
    ),
    "mpnet": hf.MPNetConfig(**SIZES),
    "t5": hf.T5Config(vocab_size=40, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3),
    "deberta": hf.DebertaV2Config(**SIZES),
    "xlnet": hf.XLNetConfig(vocab_size=40, d_model=24, n_layer=2, n_head=3, d_inner=32),
}
UNPADDED = ("bert", "roberta", "electra", "gpt2", "llama", "qwen2")
SMALL = Preprocessing(80, 75, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
LARGE = Preprocessing(224, 224, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
"""At this size MobileNetV2 gives other bytes in batches below 16 than above."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            save_tokenizer(made[kind])
            torch.manual_seed(0)
            auto = hf.AutoModelForTextEncoding if kind == "t5" else hf.AutoModel
            auto.from_config(CONFIGS[kind]).eval().save_pretrained(made[kind])
        return made[kind]

    return folder


def assert_same_bytes(encoder: Encoder, rows: list) -> None:
    """In every way the rows may come."""

    def vectors(chosen: list[int], batch_size: int, threads: int = 1) -> np.ndarray:
        result = embed(encoder, [rows[row] for row in chosen], batch_size=batch_size, threads=threads)
        assert result.ok.all(), result.details
        return result.vectors.view(np.uint32)

    everything = list(range(len(rows)))
    whole = vectors(everything, 8192)
    assert len(np.unique(whole, axis=0)) > 1
    for row in everything:
        np.testing.assert_array_equal(vectors([row], 8192)[0], whole[row], f"row {row} alone")
    for row in everything[:-1]:
        np.testing.assert_array_equal(vectors([row, row + 1], 8192), whole[row : row + 2], f"rows from {row} in twos")
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    for batch_size in (1, 16, 64, 8192):
        for threads in (1, 2):
            np.testing.assert_array_equal(
                vectors(shuffled, batch_size, threads), whole[shuffled], f"{batch_size} a batch, {threads} threads"
            )


@pytest.mark.parametrize("kind", UNPADDED)
def test_texts_without_padding(kind, folders):
    encoder = load(EncoderSpec("text", str(folders(kind))))
    assert isinstance(encoder, TextEncoder)
    assert encoder.unpadded is not None
    assert encoder.reproducible
    assert_same_bytes(encoder, TEXTS)


@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - set(UNPADDED)))
def test_texts_with_padding_are_reproducible_where_it_is_asked_for(kind, folders):
    spec = EncoderSpec("text", str(folders(kind)))
    padded = load(spec)
    assert isinstance(padded, TextEncoder)
    assert padded.unpadded is None
    assert (padded.batching, padded.reproducible) == ("padded", False)
    asked = EncoderSpec("text", str(folders(kind)), reproducible=True)
    encoder = load(asked)
    assert isinstance(encoder, TextEncoder)
    assert encoder.batching in ("equal lengths", "alone")
    assert encoder.reproducible
    assert_same_bytes(encoder, TEXTS)
    assert describe(asked).fingerprint["together"] == encoder.batching
    assert describe(asked).encoder_id != describe(spec).encoder_id


def test_windows_and_half_precision(folders):
    for changes in ({"long_text": "window-mean"}, {"dtype": "bfloat16"}):
        encoder = load(EncoderSpec("text", str(folders("bert")), reproducible=True, **changes))
        assert encoder.reproducible
        assert_same_bytes(encoder, TEXTS)


def test_layers_after_pooling(tmp_path, folders):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    torch.manual_seed(1)
    pooling = parts.Pooling(24, pooling_mode=("mean", "weightedmean", "max"))
    modules = [parts.Transformer(str(folders("bert"))), pooling, parts.Dense(72, 21), parts.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path), create_model_card=False)
    encoder = load(EncoderSpec("text", str(tmp_path)))
    assert encoder.reproducible
    assert_same_bytes(encoder, TEXTS)


@pytest.mark.parametrize(
    ("architecture", "asked"),
    [("mobilenet_v2", None), *product(("resnet18", "shufflenet_v2_x0_5", "efficientnet_b0"), (None, True))],
)
def test_pictures_of_torchvision(architecture, asked, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_file(models.get_model(architecture, weights=None, num_classes=7).state_dict(), file)
    name = f"torchvision/{architecture}"
    given = LARGE if architecture == "mobilenet_v2" else SMALL
    encoder = load(EncoderSpec("image", name, weights=str(file), preprocessing=given, reproducible=asked))
    assert encoder.reproducible
    assert_same_bytes(encoder, [encoded(drawn(120, 90, seed)) for seed in range(18 if given is LARGE else 11)])


@pytest.mark.parametrize(
    ("config", "pictures"),
    [
        (
            hf.ViTConfig(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, image_size=75,
                patch_size=15,
            ),
            4,
        ),
        (hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]), 16),
    ],
)  # fmt: skip
def test_pictures_of_transformers(config, pictures, tmp_path):
    torch.manual_seed(0)
    hf.AutoModel.from_config(config).eval().save_pretrained(tmp_path)
    encoder = load(EncoderSpec("image", str(tmp_path), preprocessing=SMALL))
    assert (encoder.reproducible, encoder.least_rows) == (True, pictures)
    assert_same_bytes(encoder, [encoded(drawn(120, 90, seed)) for seed in range(11)])


def test_encoders_without_a_model():
    assert_same_bytes(load(EncoderSpec("text", "builtin/hashing")), TEXTS)
    assert_same_bytes(load(EncoderSpec("image", "builtin/descriptor")), [encoded(drawn(120, 90, i)) for i in range(9)])
    assert_same_bytes(load(EncoderSpec("vector", None, width=3)), [[0.1, 0.2, float(row)] for row in range(9)])


class FirstOfBatch(nn.Module):
    """Adds the mean of the first picture to all: what no launch of a fixed size can undo."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)[:, :5] + pictures[:1].mean()


def test_pictures_that_see_each_other_go_alone_or_are_named():
    from barycenter.fusion.encoders.image.encoder import ImageEncoder
    from barycenter.fusion.encoders.image.transforms import Transform

    transform = Transform((75, 75), True, (75, 75), 2, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    for asked, expected in ((None, (False, 1)), (True, (True, 1)), (False, (False, 1))):
        spec = EncoderSpec("image", "x", reproducible=asked)
        encoder = ImageEncoder(FirstOfBatch(), transform, 5, spec, "cpu").make_reproducible(spec)
        assert (encoder.reproducible, encoder.least_rows) == expected
        if asked:
            assert_same_bytes(encoder, [encoded(drawn(120, 90, seed)) for seed in range(5)])


def test_what_cannot_be_had_is_refused_by_its_key(folders, monkeypatch):
    monkeypatch.setattr("barycenter.fusion.encoders.text.encoder.gives_same_bytes", lambda *_: False)
    spec = EncoderSpec("text", str(folders("bert")), reproducible=True)
    for use in (describe, load):
        with pytest.raises(JobError) as caught:
            use(spec)
        assert caught.value.key == "reproducible"
    assert not load(EncoderSpec("text", str(folders("bert")))).reproducible


@given(st.lists(st.integers(1, 5), max_size=30))
def test_runs_are_the_lengths_again(lengths):
    runs = equal_runs(lengths)
    assert [length for count, length in runs for _ in range(count)] == lengths
    assert all(first[1] != second[1] for first, second in pairwise(runs))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=20))
def test_texts_of_one_length_stand_together_and_are_filled_up(texts):
    groups = list(_rows_run_together(texts, False))
    assert sorted(row for rows in groups for row in rows) == list(range(len(texts)))
    assert len({len(texts[rows[0]]) for rows in groups}) == len(groups)
    for rows in groups:
        chosen = [texts[row] for row in rows]
        filled = _filled(chosen)
        assert filled[: len(chosen)] == chosen
        assert sum(map(len, filled)) >= 16
        assert len({len(text) for text in filled}) == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 5))
def test_pooling_and_later_layers_see_their_row_alone(lengths, seed):
    torch.manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    states, layer = torch.randn(*mask.shape, 20), nn.Linear(60, 7)
    modes = ("mean", "weightedmean", "mean_sqrt_len_tokens")
    with torch.inference_mode():
        whole = by_rows(layer, pool_tokens(states, mask, modes))
        for row, length in enumerate(lengths):
            alone = pool_tokens(states[row : row + 1, :length], mask[row : row + 1, :length], modes)
            assert torch.equal(by_rows(layer, alone)[0], whole[row])
