"""Folders of text models whose files say something odd: read as the library reads them, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.batch_check import relative_difference
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import SENTENCES, save_tokenizer

TYPES = "sentence_transformers.models."


def change(folder: Path, file: str, **entries: object) -> None:
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | entries))


@pytest.fixture
def sentence(tiny_bert, tmp_path) -> Path:
    """A folder of a transformer with mean pooling, as sentence-transformers save it."""
    folder = tmp_path / "sentence"
    shutil.copytree(tiny_bert, folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listing = [{"idx": i, "type": TYPES + kind, "path": path} for i, (kind, path) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "1_Pooling").mkdir()
    change(folder, "1_Pooling/config.json", embedding_dimension=24, pooling_mode="mean")
    change(folder, "sentence_bert_config.json", max_seq_length=32, do_lower_case=False)
    return folder


def vectors(folder: Path) -> np.ndarray:
    return embed(load(EncoderSpec("text", str(folder))), SENTENCES, batch_size=64, threads=1).vectors


def outside(folder: Path, path: str) -> None:
    listing = json.loads((folder / "modules.json").read_text())
    listing[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(listing))
    shutil.copytree(folder / "1_Pooling", folder.parent / "elsewhere")


def without_type(folder: Path) -> None:
    listing = json.loads((folder / "modules.json").read_text())
    del listing[1]["type"]
    (folder / "modules.json").write_text(json.dumps(listing))


ODD = {
    "a module beside the folder": (lambda f: outside(f, "../elsewhere"), "module outside its folder"),
    "a module by an absolute path": (lambda f: outside(f, str(f.parent / "elsewhere")), "module outside its folder"),
    "a module without a type": (without_type, "there is no 'type'"),
    "a prompt that is not there": (
        lambda f: change(f, "config_sentence_transformers.json", prompts={"q": "x: "}, default_prompt_name="query"),
        "default_prompt_name 'query', but its prompts are 'q'",
    ),
    "no settings of the pooling": (lambda f: (f / "1_Pooling/config.json").unlink(), "1_Pooling has no config.json"),
    "a pooling mode misspelt": (
        lambda f: change(f, "1_Pooling/config.json", pooling_mode_clstoken=True), "unknown setting 'pooling_mode_cls",
    ),
    "no length": (lambda f: change(f, "sentence_bert_config.json", max_seq_length=0), "max_seq_length 0"),
    "a text as length": (lambda f: change(f, "sentence_bert_config.json", max_seq_length="32"), "max_seq_length '32'"),
    "a length below 0": (lambda f: change(f, "sentence_bert_config.json", max_seq_length=-1), "special tokens fill"),
    "a length of special tokens": (
        lambda f: change(f, "sentence_bert_config.json", max_seq_length=2), "reads 2 tokens .* 2 special tokens fill",
    ),
    "a length below them": (lambda f: change(f, "sentence_bert_config.json", max_seq_length=1), "reads 1 tokens"),
    "no columns": (lambda f: change(f, "config_sentence_transformers.json", truncate_dim=0), "truncate_dim 0"),
    "an adapter": (lambda f: change(f, "adapter_config.json", peft_type="LORA"), "holds an adapter .*merge it"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_a_folder_that_cannot_be_read_as_it_says_is_refused(case, sentence):
    make, message = ODD[case]
    make(sentence)
    spec = EncoderSpec("text", str(sentence))
    for action in (describe, load):
        with pytest.raises(JobError, match=message):
            action(spec)


def test_an_adapter_in_a_plain_folder_is_refused(tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "plain")
    change(tmp_path / "plain", "adapter_config.json", peft_type="LORA")
    with pytest.raises(JobError, match="holds an adapter"):
        describe(EncoderSpec("text", str(tmp_path / "plain")))


@pytest.mark.parametrize(
    "settings",
    [{"return_dict": False, "output_hidden_states": True}, {"architectures": ["SomeTextModelWithProjection"]}],
)
def test_settings_that_change_no_vector_change_none(settings, sentence, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "plain")
    for folder in (sentence, tmp_path / "plain"):
        expected = vectors(folder)
        change(folder, "config.json", **settings)
        assert describe(EncoderSpec("text", str(folder))).dim == 24
        assert np.array_equal(vectors(folder), expected)


def test_mpt_reads_as_many_tokens_as_it_has_biases_for(tmp_path):
    torch.manual_seed(0)
    size = save_tokenizer(tmp_path, max_length=64)
    config = transformers.MptConfig(vocab_size=size, d_model=24, n_layers=2, n_heads=3, max_seq_len=16)
    transformers.MptModel(config).eval().save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = [torch.tensor([tokenizer(text, truncation=True, max_length=16)["input_ids"]]) for text in SENTENCES]
    with torch.inference_mode():
        expected = np.stack([model(input_ids=row).last_hidden_state.mean(dim=1)[0].numpy() for row in ids])
    assert describe(EncoderSpec("text", str(tmp_path))).dim == 24
    assert relative_difference(expected, vectors(tmp_path)) < 1e-4


def test_texts_that_are_too_short_for_the_model_are_refused_and_the_others_read(tmp_path):
    torch.manual_seed(0)
    size = save_tokenizer(tmp_path)
    config = transformers.FunnelConfig(
        vocab_size=size, block_sizes=[1, 1, 1], d_model=32, n_head=4, d_head=8, d_inner=40
    )
    model = transformers.FunnelModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [text for text in SENTENCES if len(tokenizer(text)["input_ids"]) > 4]
    ids = [torch.tensor([tokenizer(text, truncation=True)["input_ids"]]) for text in texts]
    with torch.inference_mode():
        expected = np.stack([model(input_ids=row).last_hidden_state.mean(dim=1)[0].numpy() for row in ids])
    encoder = load(EncoderSpec("text", str(tmp_path)))
    result = embed(encoder, ["boat", *texts], batch_size=24, threads=1)
    assert relative_difference(expected, result.vectors[1:]) < 1e-4
    assert result.ok.tolist() == [False] + [True] * len(texts)
    assert "texts of 5 tokens or more, this one has 3" in str(result)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_that_is_read_stands_where_the_tokenizer_puts_it(side, tmp_path):
    parts = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    text = parts | {"vocab_size": 200, "max_position_embeddings": 16, "projection_size": 32}
    torch.manual_seed(0)
    config = transformers.SiglipConfig(text_config=text, vision_config=parts | {"image_size": 32, "patch_size": 16})
    model = transformers.SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    change(tmp_path, "tokenizer_config.json", padding_side=side, model_max_length=16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(SENTENCES, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=ids).pooler_output.numpy()
    ours = embed(load(EncoderSpec("text", str(tmp_path))), SENTENCES, batch_size=24, threads=1).vectors
    assert relative_difference(expected, ours) < 1e-4
