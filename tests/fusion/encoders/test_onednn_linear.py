from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from barycenter.fusion import torch_compat
from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.onednn_linear import (
    OneDNNLinear,
    has_onednn_layers,
    has_replaceable_layers,
    use_onednn_linear,
)

IDS = torch.randint(5, 100, (3, 11), generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128}


def bert(**settings):
    torch.manual_seed(0)
    return BertModel(BertConfig(vocab_size=100, **SIZES, **settings)).eval()


def states(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids).last_hidden_state


def kinds(model):
    return {type(module) for module in model.modules()}


def test_a_text_model_gives_the_same_vectors_and_gelu_is_part_of_the_layer():
    model = bert()
    before = states(model)
    assert use_onednn_linear(model, lambda: states(model).numpy())
    assert nn.Linear not in kinds(model)
    layer = model.encoder.layer[0].intermediate
    assert isinstance(layer.intermediate_act_fn, nn.Identity)
    for ids in (IDS, IDS[:1, :1], IDS.repeat(40, 3)):
        again = states(model, ids)
        assert torch.isfinite(again).all()
    torch.testing.assert_close(states(model), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "gelu_python"])
def test_another_activation_stays_where_it_is(activation):
    model = bert(hidden_act=activation)
    before = states(model)
    assert use_onednn_linear(model, lambda: states(model).numpy())
    assert not isinstance(model.encoder.layer[0].intermediate.intermediate_act_fn, nn.Identity)
    torch.testing.assert_close(states(model), before, atol=1e-5, rtol=0)


def test_models_that_look_at_their_weights():
    torch.manual_seed(0)
    config = T5Config(vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    model = T5EncoderModel(config).eval()
    before = states(model)
    assert use_onednn_linear(model, lambda: states(model).numpy())
    torch.testing.assert_close(states(model), before, atol=1e-5, rtol=0)


def clip():
    config = CLIPVisionConfig(**SIZES, image_size=32, patch_size=8, projection_dim=32)
    model = CLIPVisionModelWithProjection(config).eval()
    return model, lambda pixels: model(pixel_values=pixels).image_embeds


def vit():
    model = VisionTransformer(32, 8, 2, 4, 64, 128).eval()
    return model, model


@pytest.mark.parametrize("make", [clip, vit])
def test_pictures(make):
    torch.manual_seed(0)
    model, run = make()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = run(pixels)
        assert use_onednn_linear(model, lambda: run(pixels).numpy())
        torch.testing.assert_close(run(pixels), before, atol=1e-5, rtol=0)


class Peeks(nn.Module):
    """Multiplies by a layer's weight itself."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, values):
        return values @ self.dense.weight.T


def test_a_model_that_computes_with_its_weights_is_left_as_it_was():
    model = Peeks().eval()
    values = torch.randn(2, 8)
    before = model(values)
    assert not use_onednn_linear(model, lambda: model(values).detach().numpy())
    assert type(model.dense) is nn.Linear
    assert torch.equal(model(values), before)


def test_what_is_not_float32_or_has_no_layers_is_left_alone():
    model = bert().to(torch.bfloat16)
    assert not use_onednn_linear(model, lambda: pytest.fail("nothing was replaced"))
    assert OneDNNLinear not in kinds(model)
    assert not use_onednn_linear(nn.Conv2d(3, 3, 1), lambda: pytest.fail("nothing was replaced"))


def test_a_torch_without_the_private_operators_keeps_its_own_layers(monkeypatch):
    monkeypatch.setattr(torch_compat, "_ONEDNN_OPERATORS", ("_reorder_linear_weight", "_no_such_operator"))
    model = bert()
    assert not use_onednn_linear(model, lambda: states(model).numpy())
    assert OneDNNLinear not in kinds(model)


@pytest.mark.parametrize("long_text", ["truncate", "window-mean"])
def test_the_layers_can_be_left_out_and_that_is_no_other_encoder(tiny_bert, long_text):
    spec = EncoderSpec("text", str(tiny_bert), long_text=long_text)
    without = replace(spec, onednn=False)
    assert describe(spec) == describe(without)
    first, second = load(spec), load(without)
    assert (has_onednn_layers(first), has_onednn_layers(second)) == (True, False)
    assert (has_replaceable_layers(first), has_replaceable_layers(second)) == (False, True)
    texts = [first.prepare(text) for text in ("a cat", "a dog on a mat")]
    np.testing.assert_allclose(first.encode(texts), second.encode(texts), atol=1e-5)
    for without_model in (load(EncoderSpec("text", "builtin/hashing")), object()):
        assert not has_onednn_layers(without_model)
        assert not has_replaceable_layers(without_model)
