"""Folders of sentence-transformers whose settings change what is read: as the library does, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.encoders.sentence_modules import pool_tokens
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import SENTENCES, save_tokenizer

SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
from sentence_transformers import models as parts  # noqa: E402


def agrees(folder: Path) -> np.ndarray:
    spec = EncoderSpec("text", str(folder))
    result = embed(load(spec), SENTENCES, batch_size=64, threads=1)
    library = SentenceTransformer(str(folder), device="cpu")
    theirs = np.stack([library.encode(text) for text in SENTENCES])
    np.testing.assert_allclose(result.vectors, theirs, atol=1e-5)
    assert describe(spec).dim == theirs.shape[1]
    return theirs


def refused(folder: Path) -> str:
    with pytest.raises(JobError) as caught:
        describe(EncoderSpec("text", str(folder)))
    assert caught.value.key == "encoder"
    return caught.value.problem


def saved(folder: Path, tiny_bert: Path, *later, **options) -> Path:
    torch.manual_seed(1)
    modules = [parts.Transformer(str(tiny_bert)), parts.Pooling(24, pooling_mode="mean"), *later]
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder), create_model_card=False)
    return folder


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_truncated_vectors(tmp_path, tiny_bert):
    folder = saved(tmp_path / "m", tiny_bert, parts.Normalize(), truncate_dim=10)
    assert agrees(folder).shape[1] == 10
    assert describe(EncoderSpec("text", str(folder))).dim == 10


@pytest.mark.parametrize("out", [24, 10])
def test_a_residual_layer(out, tmp_path, tiny_bert):
    agrees(saved(tmp_path / "m", tiny_bert, parts.Dense(24, out, use_residual=True)))


def test_a_layer_that_writes_elsewhere_leaves_the_vector(tmp_path, tiny_bert):
    plain = agrees(saved(tmp_path / "a", tiny_bert))
    aside = agrees(saved(tmp_path / "b", tiny_bert, parts.Dense(24, 10, module_output_name="aside")))
    np.testing.assert_allclose(aside, plain, atol=1e-6)


def test_a_layer_on_tokens_before_pooling(tmp_path, tiny_bert):
    dense = parts.Dense(24, 10, module_input_name="token_embeddings", activation_function=torch.nn.GELU())
    modules = [parts.Transformer(str(tiny_bert)), dense, parts.Pooling(10, pooling_mode=["max", "mean"])]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path), create_model_card=False)
    assert agrees(tmp_path).shape[1] == 20


def test_states_of_an_inner_layer(tmp_path, tiny_bert):
    folder = saved(tmp_path / "m", tiny_bert)
    last = agrees(folder)
    entry = {"text": {"method": "forward", "method_output_name": "hidden_states"}}
    changed(folder / "sentence_bert_config.json", modality_config=entry)
    assert "no text embedding" in refused(folder)
    entry["text"]["method_output_name"] = ["last_hidden_state"]
    changed(folder / "sentence_bert_config.json", modality_config=entry)
    np.testing.assert_allclose(agrees(folder), last, atol=1e-6)


def test_the_pooled_output_where_the_folder_asks_for_it(tmp_path, tiny_bert):
    transformer = parts.Transformer(str(tiny_bert))
    SentenceTransformer(modules=[transformer, parts.Normalize()], device="cpu").save(
        str(tmp_path), create_model_card=False
    )
    entry = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    settings = tmp_path / "sentence_bert_config.json"
    changed(settings, modality_config=entry, module_output_name="sentence_embedding")
    agrees(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ({"modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}}, "chat"),
        ({"modality_config": {"image": {"method": "forward", "method_output_name": "last_hidden_state"}}}, "reads no"),
        ({"module_output_name": "elsewhere"}, "module_output_name is 'elsewhere'"),
        ({"module_output_name": "sentence_embedding"}, "Pooling module cannot pool"),
        ({"processing_kwargs": {"text": {"truncation": False}}}, "not truncated"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "add_special_tokens"),
        ({"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}, "chat_template"),
        ({"tokenizer_args": {"padding_side": "left"}}, "padding_side"),
        ({"config_args": {"hidden_act": "relu"}}, "hidden_act"),
    ],
)
def test_settings_that_are_not_supported_are_refused_by_name(settings, words, tmp_path, tiny_bert):
    folder = saved(tmp_path / "m", tiny_bert)
    changed(folder / "sentence_bert_config.json", **settings)
    assert words in refused(folder)


def test_a_shorter_length_for_the_tokenizer(tmp_path, tiny_bert):
    folder = saved(tmp_path / "m", tiny_bert)
    changed(
        folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 9, "padding": "max_length"}}
    )
    agrees(folder)
    assert load(EncoderSpec("text", str(folder))).tokenizer.max_length == 9


def test_modules_of_other_packages_and_in_another_order_are_refused(tmp_path, tiny_bert):
    folder = saved(tmp_path / "m", tiny_bert)
    listing = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(listing[:1]))
    assert "no Pooling module" in refused(folder)
    (folder / "modules.json").write_text(json.dumps([{**listing[0], "type": "custom_st.Transformer"}, listing[1]]))
    assert "custom_st.Transformer" in refused(folder)
    (folder / "modules.json").write_text(json.dumps([*listing, listing[0]]))
    assert "Transformer" in refused(folder)


def clip(folder: Path) -> Path:
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    size = save_tokenizer(folder, max_length=20)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    text = {**shape, "vocab_size": size, "max_position_embeddings": 20, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**shape, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval().save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("later", ["nothing", "normalize", "dense"])
def test_modules_after_a_tower(later, tmp_path):
    modules = {"nothing": [], "normalize": [parts.Normalize()], "dense": [parts.Dense(12, 5), parts.Normalize()]}
    transformer = parts.Transformer(str(clip(tmp_path / "clip")))
    assert transformer.module_output_name == "sentence_embedding"
    torch.manual_seed(1)
    SentenceTransformer(modules=[transformer, *modules[later]], device="cpu").save(
        str(tmp_path / "m"), create_model_card=False
    )
    lengths = np.linalg.norm(agrees(tmp_path / "m"), axis=1)
    assert (later == "nothing") != bool(np.allclose(lengths, 1, atol=1e-4))


def test_a_text_tower_that_is_pooled_over_its_tokens(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    size = save_tokenizer(tmp_path / "t", max_length=20)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    config = CLIPTextConfig(**shape, vocab_size=size, max_position_embeddings=20, eos_token_id=3, pad_token_id=0)
    CLIPTextModel(config).eval().save_pretrained(tmp_path / "t")
    modules = [parts.Transformer(str(tmp_path / "t")), parts.Pooling(16, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "m"), create_model_card=False)
    agrees(tmp_path / "m")


def test_an_old_layer_belongs_to_the_identity(tmp_path, tiny_bert):
    from safetensors.torch import load_file

    folder = saved(tmp_path / "m", tiny_bert, parts.Dense(24, 10))
    stored = load_file(folder / "2_Dense/model.safetensors")
    (folder / "2_Dense/model.safetensors").unlink()
    torch.save(stored, folder / "2_Dense/pytorch_model.bin")
    before = describe(EncoderSpec("text", str(folder)))
    torch.save({**stored, "linear.bias": stored["linear.bias"] + 1}, folder / "2_Dense/pytorch_model.bin")
    assert describe(EncoderSpec("text", str(folder))).encoder_id != before.encoder_id


def test_only_tokens_that_count_are_pooled():
    tokens = torch.tensor([[[5.0], [1.0], [3.0], [9.0]], [[2.0], [-4.0], [7.0], [1.0]]])
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])
    expected = {
        "cls": [1, 2], "lasttoken": [3, 1], "max": [3, 7], "mean": [2, 1.5], "mean_sqrt_len_tokens": [4 / 2**0.5, 3],
        "weightedmean": [(2 * 1 + 3 * 3) / 5, (2 - 8 + 21 + 4) / 10],
    }  # fmt: skip
    for mode, values in expected.items():
        torch.testing.assert_close(pool_tokens(tokens, mask, (mode,))[:, 0], torch.tensor(values, dtype=torch.float32))
    assert pool_tokens(tokens, mask, ("max", "cls")).tolist() == [[3, 1], [7, 2]]
