from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from barycenter.fusion.encoders.text.encoder import TextEncoder
from barycenter.fusion.encoders.text.variable_length import VariableLengthModel

SIZES = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
SIZES |= {"max_position_embeddings": 48, "initializer_range": 0.3}
LENGTHS = (5, 1, 30, 17)


def batch(pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, 40, mask.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(mask, ids, pad), mask


@pytest.mark.parametrize(("build", "settings"), [(BertModel, BertConfig), (RobertaModel, RobertaConfig)])
def test_states_equal_those_with_padding(build, settings):
    torch.manual_seed(0)
    config = settings(**SIZES)
    model = build(config, add_pooling_layer=False).eval()
    unpadded = VariableLengthModel.of(model, config.pad_token_id)
    assert unpadded is not None
    ids, mask = batch(config.pad_token_id)
    with torch.inference_mode():
        before = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        states = unpadded.states(ids, mask)
        after = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(states[mask], before[mask], rtol=1e-4, atol=1e-5)
    assert not states[~mask].any()
    assert torch.equal(before, after)


def test_a_model_whose_tokens_see_only_those_before_them_runs_without_padding():
    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**SIZES, pad_token_id=0)).eval()
    unpadded = VariableLengthModel.of(model, 0)
    assert unpadded is not None
    ids, mask = batch(0)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(unpadded.states(ids, mask)[mask], padded[mask], rtol=1e-4, atol=1e-5)


def test_a_model_with_attention_of_its_own_keeps_its_padding():
    model = MPNetModel(MPNetConfig(**SIZES), add_pooling_layer=False).eval()
    assert VariableLengthModel.of(model, 1) is None


def test_an_encoder_gives_the_same_vectors_packed_and_padded(tiny_bert):
    from barycenter.fusion.encoders import EncoderSpec, load

    padding, encoder = (load(EncoderSpec("text", str(tiny_bert), reproducible=asked)) for asked in (False, None))
    assert isinstance(padding, TextEncoder)
    assert isinstance(encoder, TextEncoder)
    assert padding.unpadded is None
    assert encoder.unpadded is not None
    rows = [encoder.prepare(text) for text in ("a red crab", "sun", "the boat is near a large house " * 3)]
    padded = torch.from_numpy(padding.encode(rows))
    torch.testing.assert_close(torch.from_numpy(encoder.encode(rows)), padded, rtol=1e-4, atol=1e-5)


def test_a_model_set_up_to_run_without_padding_is_as_before_for_others():
    torch.manual_seed(0)
    model = MistralModel(MistralConfig(**SIZES, pad_token_id=0, num_key_value_heads=3, sliding_window=None)).eval()
    ids, mask = batch(0)
    with torch.inference_mode():
        before = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        unpadded = VariableLengthModel.of(model, 0)
        assert unpadded is not None
        assert torch.equal(before, model(input_ids=ids, attention_mask=mask.long()).last_hidden_state)
        with ThreadPoolExecutor(2) as pool:
            rows = [(ids[row : row + 1, :length], mask[row : row + 1, :length]) for row, length in enumerate(LENGTHS)]
            alone = list(pool.map(lambda row: _states(unpadded, *row), rows))
        together = unpadded.states(ids, mask)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(alone[row][0], together[row, :length], rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def _states(unpadded: VariableLengthModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return unpadded.states(ids, mask)


def test_tokens_that_see_only_those_near_them_keep_their_padding():
    torch.manual_seed(0)
    model = MistralModel(MistralConfig(**SIZES, pad_token_id=0, num_key_value_heads=3, sliding_window=4096)).eval()
    assert VariableLengthModel.of(model, 0) is None
    assert model.config._attn_implementation == "sdpa"
