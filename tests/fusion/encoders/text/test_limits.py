"""What a text model can read: lengths, token ids, and how texts of other lengths in the batch are kept out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from barycenter.fusion.encoders import Encoder, EncoderSpec, describe, load
from barycenter.fusion.encoders.base import Description
from barycenter.fusion.encoders.batch_check import relative_difference
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import BadInputError, JobError, Reason
from tests.fusion.encoders.conftest import SENTENCES, save_tokenizer

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
SHAPE |= {"initializer_range": 0.3, "pad_token_id": 0}


def tiny(folder: Path, family: str, *, length: int = 512, **settings: object) -> Path:
    size = save_tokenizer(folder, max_length=length)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, "vocab_size": size, **settings})
    model = getattr(transformers, f"{family}Model")(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 1.0  # trained models have a padding that is not zero
    model.eval().save_pretrained(folder)
    return folder


def encode_one_by_one(folder: Path, texts=SENTENCES, limit: int = 512) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = [torch.tensor([tokenizer(text, truncation=True, max_length=limit)["input_ids"]]) for text in texts]
    with torch.inference_mode():
        return np.stack([model(input_ids=row).last_hidden_state.mean(dim=1)[0].numpy() for row in ids])


def both(folder: Path) -> tuple[Encoder, Description]:
    spec = EncoderSpec("text", str(folder))
    return load(spec), describe(spec)


def agrees(folder: Path, texts=SENTENCES, limit: int = 512, batches=(1, 40, 4096), known=None) -> None:
    (encoder, described), expected = known or both(folder), encode_one_by_one(folder, texts, limit)
    assert described.dim == expected.shape[1]
    for batch in batches:
        assert relative_difference(expected, embed(encoder, texts, batch_size=batch, threads=2).vectors) < 1e-4


LONG = [*SENTENCES, "crab " * 40, "sun boat " * 30]


BERT, ROBERTA = ({"max_position_embeddings": 32, "pad_token_id": pad} for pad in (0, 1))


@pytest.mark.parametrize(
    ("family", "settings", "limit", "stated"),
    [
        ("Bert", BERT, 32, False),
        ("Bert", BERT, 32, True),
        ("Data2VecText", ROBERTA, 30, False),
        ("Esm", BERT | {"position_embedding_type": "absolute"}, 31, False),
        ("Roberta", ROBERTA, 30, False),
        ("Roberta", ROBERTA, 30, True),
        ("GPT2", {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}, 32, False),
        ("OPT", {"max_position_embeddings": 32, "ffn_dim": 20, "word_embed_proj_dim": 16}, 32, False),
    ],
)
def test_texts_are_cut_at_the_last_position_that_the_model_has(family, settings, limit, stated, tmp_path):
    folder = tiny(tmp_path, family, **settings)
    if stated:
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
        entries = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
        (folder / "modules.json").write_text(json.dumps(entries))
    encoder, described = both(folder)
    assert encoder.tokenizer.max_length == described.fingerprint["max_length"] == limit
    if family != "Esm":  # its own tokenizer hides tokens
        agrees(folder, LONG, limit, known=(encoder, described))


def test_positions_without_a_table_do_not_cut(tmp_path):
    folder = tiny(tmp_path, "T5", length=64, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2, n_positions=16)
    assert load(EncoderSpec("text", str(folder))).tokenizer.max_length == 64


def test_a_tokenizer_of_more_tokens_than_the_matrix_is_refused(tmp_path):
    folder = tiny(tmp_path, "Bert", vocab_size=20)
    for run in (describe, load):
        with pytest.raises(JobError, match=r"its tokenizer has [0-9]+ tokens, but its model embeds 20") as caught:
            run(EncoderSpec("text", str(folder)))
        assert caught.value.key == "encoder"


def test_a_special_token_beyond_the_matrix_is_a_bad_text(tmp_path):
    folder = tiny(tmp_path, "Bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    tokenizer.save_pretrained(folder)
    known = both(folder)
    agrees(folder, known=known)
    with pytest.raises(BadInputError, match="<filler>") as caught:
        known[0].prepare("a <filler> crab")
    assert caught.value.reason == Reason.INVALID_TEXT


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("DebertaV2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}),
        ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
        ("Longformer", {"attention_window": 8, "max_position_embeddings": 80}),
        ("RemBert", {"input_embedding_size": 16, "output_embedding_size": 16}),
        ("XLNet", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 20}),
        ("Llama", {"num_key_value_heads": 2, "use_cache": False}),
        ("Qwen2", {"num_key_value_heads": 2, "use_cache": False}),
    ],
)
def test_models_that_cannot_run_without_weights(family, settings, tmp_path):
    agrees(tiny(tmp_path, family, length=48, **settings), limit=48)


@pytest.mark.parametrize("family", ["T5", "MT5"])
def test_encoders_of_both(family, tmp_path):
    size = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=size, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2, pad_token_id=0
    )
    getattr(transformers, f"{family}EncoderModel")(config).eval().save_pretrained(tmp_path)
    vectors = embed(load(EncoderSpec("text", str(tmp_path))), SENTENCES, batch_size=64, threads=1).vectors
    assert describe(EncoderSpec("text", str(tmp_path))).dim == vectors.shape[1] == 16


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("FNet", {}),
        ("MobileBert", {"embedding_size": 16, "intra_bottleneck_size": 16, "trigram_input": True}),
        ("ConvBert", {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1}),
    ],
)
def test_padding_that_a_model_does_not_mask_is_left_out(family, settings, tmp_path):
    folder = tiny(tmp_path, family, **settings)
    encoder, described = both(folder)
    assert encoder.batching == described.fingerprint["together"] == "equal lengths"
    agrees(folder, known=(encoder, described))
    encoder.batching = "padded"
    rows = [encoder.prepare(text) for text in SENTENCES]
    assert relative_difference(encode_one_by_one(folder), encoder.encode(rows)) > 1e-3


def test_sparse_attention_is_not_left_for_good_after_a_short_text(tmp_path):
    folder = tiny(
        tmp_path,
        "BigBird",
        max_position_embeddings=128,
        block_size=4,
        num_random_blocks=1,
        attention_type="block_sparse",
    )
    short, long = "a red crab", "crab boat sun sky house " * 20
    fresh = [load(EncoderSpec("text", str(folder))) for _ in range(2)]
    expected = encode_one_by_one(folder, [long])
    for encoder, texts in zip(fresh, ([long, short], [short, long]), strict=True):
        vectors = np.concatenate([encoder.encode([encoder.prepare(text)]) for text in texts])
        assert relative_difference(expected, vectors[[texts.index(long)]]) < 1e-4
    agrees(folder, [long, short], batches=(4096,))


def test_a_model_that_draws_at_random_is_refused(tmp_path, tiny_bert, monkeypatch):
    forward = transformers.BertModel.forward

    def drawn(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.last_hidden_state = output.last_hidden_state + torch.rand_like(output.last_hidden_state)
        return output

    monkeypatch.setattr(transformers.BertModel, "forward", drawn)
    with pytest.raises(JobError, match="draws at random"):
        describe(EncoderSpec("text", str(tiny_bert)))


def test_a_model_that_does_not_fit_is_described_without_weights(monkeypatch, tiny_bert, caplog):
    from barycenter.fusion.encoders.text import encoder as text

    whole = describe(EncoderSpec("text", str(tiny_bert)))
    monkeypatch.setattr(text, "fits_memory", lambda _: False)
    assert describe(EncoderSpec("text", str(tiny_bert))) == whole
    assert "not checked" in caplog.text


def test_a_tower_of_pictures_does_not_shorten_texts(tmp_path):
    size = save_tokenizer(tmp_path, max_length=100)
    text = {**SHAPE, "model_type": "llama", "vocab_size": size, "max_position_embeddings": 128}
    vision = {**SHAPE, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_id=size - 1)
    transformers.LlavaModel(config).eval().save_pretrained(tmp_path)
    known = both(tmp_path)
    assert known[0].tokenizer.max_length == 100  # its pictures have five positions
    agrees(tmp_path, LONG, 100, known=known)
