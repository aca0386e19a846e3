import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.hub import is_stateful
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import BadInputError, JobError, Reason
from tests.fusion.encoders.conftest import SENTENCES, save_tokenizer

SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
from sentence_transformers import models as parts  # noqa: E402


def ours(folder: Path, texts=SENTENCES, batch: int = 64) -> np.ndarray:
    encoder = load(EncoderSpec("text", str(folder)))
    result = embed(encoder, texts, batch_size=batch, threads=2)
    assert result.ok.all()
    assert encoder.dim == describe(EncoderSpec("text", str(folder))).dim == result.vectors.shape[1]
    return result.vectors


def theirs(folder: Path, texts=SENTENCES) -> np.ndarray:
    return SentenceTransformer(str(folder), device="cpu").encode(list(texts))


def save(folder: Path, tiny_bert: Path, *later, pooling="mean", length=None, **options) -> Path:
    transformer = parts.Transformer(str(tiny_bert))
    if length:
        transformer.max_seq_length = length
    modules = [transformer, parts.Pooling(24, pooling_mode=pooling), *later]
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder), create_model_card=False)
    return folder


MODES = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ["cls", "mean"]]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_pooling_equals_sentence_transformers(mode, tmp_path, tiny_bert):
    folder = save(tmp_path / "m", tiny_bert, pooling=mode)
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)


def test_dense_layernorm_normalize_and_length(tmp_path, tiny_bert):
    torch.manual_seed(1)
    dense = parts.Dense(24, 10, activation_function=torch.nn.GELU())
    folder = save(tmp_path / "m", tiny_bert, dense, parts.LayerNorm(10), parts.Normalize(), length=16)
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)
    described = describe(EncoderSpec("text", str(folder)))
    assert (described.dim, described.fingerprint["max_length"]) == (10, 16)


def test_old_folders_with_boolean_poolings_and_lower_casing(tmp_path, tiny_bert):
    folder = save(tmp_path / "m", tiny_bert)
    save_tokenizer(folder, lowercase=False)
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 24, "pooling_mode_cls_token": False, "pooling_mode_max_tokens": True})
    )
    settings = folder / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    cased = ours(folder)
    np.testing.assert_allclose(cased, theirs(folder), atol=1e-5)
    settings.write_text(json.dumps({"max_seq_length": 12, "do_lower_case": True}))
    lowered = ours(folder)
    np.testing.assert_allclose(lowered, theirs(folder), atol=1e-5)
    assert not np.allclose(lowered[1], cased[1])


@pytest.mark.parametrize("pooled", [True, False])
def test_default_prompt(pooled, tmp_path, tiny_bert):
    folder = save(tmp_path / "m", tiny_bert, prompts={"doc": "a tiny "}, default_prompt_name="doc")
    config = json.loads((folder / "1_Pooling/config.json").read_text())
    (folder / "1_Pooling/config.json").write_text(json.dumps({**config, "include_prompt": pooled}))
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5)


def test_plain_folder_is_mean_pooled(tiny_bert):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    with torch.inference_mode():
        ids = tokenizer(SENTENCES[0], return_tensors="pt")
        expected = model(**ids).last_hidden_state.mean(dim=1)[0].numpy()
    np.testing.assert_allclose(ours(tiny_bert)[0], expected, atol=1e-5)


def test_vectors_do_not_depend_on_batches(tiny_bert):
    np.testing.assert_allclose(ours(tiny_bert, batch=1), ours(tiny_bert, batch=10_000), atol=1e-5)


def save_clip(folder: Path, family: str) -> Path:
    import transformers

    size = save_tokenizer(folder, max_length=20)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    text = {**shape, "vocab_size": size, "max_position_embeddings": 20, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**shape, "image_size": 32, "patch_size": 8}
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision)
    if family == "CLIP":
        config.projection_dim = 12
    getattr(transformers, f"{family}Model")(config).eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "dim"), [("CLIP", 12), ("Siglip", 16)])
def test_text_towers_give_their_embedding(family, dim, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = save_clip(tmp_path, family)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(SENTENCES, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    mask = {"attention_mask": ids["attention_mask"]} if family == "CLIP" else {}
    with torch.inference_mode():
        expected = model.get_text_features(ids["input_ids"], **mask).pooler_output.numpy()
    vectors = ours(folder)
    assert vectors.shape[1] == dim
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("part", ["Question", "Context"])
def test_passage_retrieval_gives_its_pooled_output(part, tmp_path):
    from transformers import AutoTokenizer, DPRConfig, DPRContextEncoder, DPRQuestionEncoder

    size = save_tokenizer(tmp_path)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    torch.manual_seed(0)
    kind = DPRQuestionEncoder if part == "Question" else DPRContextEncoder
    model = kind(DPRConfig(vocab_size=size, initializer_range=0.3, **shape)).eval()
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.inference_mode():
        expected = [
            model(**tokenizer(text, truncation=True, return_tensors="pt")).pooler_output[0].numpy()
            for text in SENTENCES
        ]
    np.testing.assert_allclose(ours(tmp_path), np.stack(expected), atol=1e-5)


def test_encoder_of_an_encoder_decoder(tmp_path):
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    size = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2, pad_token_id=0)
    T5ForConditionalGeneration(config).eval().save_pretrained(tmp_path)
    encoder = load(EncoderSpec("text", str(tmp_path)))
    assert isinstance(encoder.model, T5EncoderModel)
    assert ours(tmp_path).shape == (len(SENTENCES), 16)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, Reason.NULL), (float("nan"), Reason.NULL), ("", Reason.EMPTY), (" \n\t ", Reason.EMPTY),
     (7, Reason.NOT_TEXT), (b"bytes", Reason.NOT_TEXT), ("lone \ud800 surrogate", Reason.INVALID_TEXT)],
)  # fmt: skip
def test_bad_texts(value, reason, tiny_bert):
    with pytest.raises(BadInputError) as caught:
        load(EncoderSpec("text", str(tiny_bert))).prepare(value)
    assert caught.value.reason == reason


def test_huge_texts_give_the_same_tokens_as_their_beginning(tiny_bert):
    encoder = load(EncoderSpec("text", str(tiny_bert)))
    assert encoder.tokenizer.max_length == 48
    beginning = encoder.prepare("red crab " * 100)
    assert len(beginning) == 48
    assert encoder.prepare("red crab " * 1_200_000) == beginning
    assert encoder.prepare("red" + " " * 500_000 + "crab") == encoder.prepare("red crab")
    assert encoder.prepare("x" * 300_000) == encoder.prepare("x" * 30)


def refused(folder: Path, **options) -> JobError:
    with pytest.raises(JobError) as caught:
        describe(EncoderSpec("text", str(folder), **options))
    assert "\n" not in str(caught.value)
    return caught.value


def test_unusable_folders(tmp_path, tiny_bert):
    assert "no such folder" in refused(tmp_path / "absent").problem
    assert "is no folder of a model" in refused(tmp_path).problem
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    assert refused(tmp_path).key == "encoder"
    folder = save(tmp_path / "m", tiny_bert)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.CNN"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert "CNN" in refused(folder).problem


def test_code_in_the_folder_is_not_run_unasked(tmp_path, tiny_bert):
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    assert "trust_remote_code: true" in refused(tmp_path).problem


def test_missing_weights_are_reported(tmp_path, tiny_bert):
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "m", tiny_bert)
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(JobError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load(EncoderSpec("text", str(folder)))


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    from barycenter.fusion.encoders import hub

    def unreachable(*_args, **_options):
        raise OSError("no route")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    error = refused(Path("someone/some-model"))
    assert error.key == "encoder"
    assert "path of its folder" in error.problem


def test_identity_follows_content(tmp_path, tiny_bert):
    first, second = save(tmp_path / "a", tiny_bert), save(tmp_path / "b", tiny_bert)
    before = describe(EncoderSpec("text", str(first)))
    assert before == describe(EncoderSpec("text", str(second)))
    assert describe(EncoderSpec("text", str(first), dtype="bfloat16")).encoder_id != before.encoder_id
    (second / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 24, "pooling_mode": "max"}))
    assert describe(EncoderSpec("text", str(second))).encoder_id != before.encoder_id


def test_half_precision_stays_close(tiny_bert):
    full = ours(tiny_bert)
    half = embed(
        load(EncoderSpec("text", str(tiny_bert), dtype="bfloat16")), SENTENCES, batch_size=64, threads=1
    ).vectors
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert half.dtype == np.float32
    assert cosine.min() > 0.99


@pytest.mark.shared
@pytest.mark.slow
def test_minilm_equals_sentence_transformers(shared, minilm):
    rows = (shared / "data/banking77/banking_data/test.csv").read_text("utf-8").splitlines()[1:30]
    texts = [*SENTENCES, *rows, "word " * 700, "émoji 🦀 and 漢字", "x" * 4000]
    np.testing.assert_allclose(ours(minilm, texts, batch=2048), theirs(minilm, texts), atol=1e-5)


def test_the_threads_change_no_bit(tiny_bert):
    encoder = load(EncoderSpec("text", str(tiny_bert)))
    texts = [f"{SENTENCES[n % len(SENTENCES)]} {'again ' * (n % 13)}" for n in range(300)]
    two, three, many = (embed(encoder, texts, batch_size=128, threads=threads) for threads in (2, 3, 8))
    assert encoder.parallel
    assert two.vectors.tobytes() == three.vectors.tobytes() == many.vectors.tobytes()


class Rotary(torch.nn.Module):
    def __init__(self, rope_type):
        super().__init__()
        self.rope_type = rope_type


@pytest.mark.parametrize(
    ("rope_type", "code", "changes"),
    [
        ("default", False, False),
        ("longrope", False, True),
        ({"full_attention": "default", "sliding_attention": "dynamic"}, False, True),
        ("default", True, True),
    ],
)
def test_a_model_that_may_change_while_it_runs_is_known(rope_type, code, changes):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(Rotary(rope_type)))
    assert is_stateful(model, EncoderSpec("text", "any", trust_remote_code=code)) is changes


def test_transformers_tell_their_rotary_embeddings_as_we_read_them():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    for kind in ("default", "dynamic"):
        rotary = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
        model = LlamaModel(LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=9, rope_parameters=rotary))
        assert is_stateful(model, EncoderSpec("text", "any")) is (kind == "dynamic")
