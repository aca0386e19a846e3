"""Which part of a vision model's output represents the picture, and models that would draw at random."""

from pathlib import Path

import numpy as np
import pytest
import torch

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.image.encoder import Standardize
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded
from tests.fusion.encoders.image.test_transformers_models import VIT, add_processor, save
from tests.fusion.encoders.text.test_encoder import save_clip

PICTURES = [encoded(drawn(90, 60, 0)), encoded(drawn(50, 80, 1)), encoded(drawn(64, 64, 2))]


def ours(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What the encoder reads and gives for three pictures in one batch; alone they give the same."""
    encoder = load(EncoderSpec("image", str(folder)))
    prepared = [encoder.prepare(picture) for picture in PICTURES]
    vectors = encoder.encode(prepared)
    encode_one_by_one = np.concatenate([encoder.encode([one]) for one in prepared])
    np.testing.assert_allclose(encode_one_by_one, vectors, rtol=1e-4, atol=1e-5)
    assert vectors.shape[1] == describe(EncoderSpec("image", str(folder))).dim
    pixels = Standardize(encoder.transform)(torch.from_numpy(np.stack(prepared)))
    return pixels.contiguous(), torch.from_numpy(vectors)


def used_output(folder: Path) -> object:
    return describe(EncoderSpec("image", str(folder))).fingerprint["features"]


@torch.inference_mode()
def test_a_masked_autoencoder_is_shown_every_patch(tmp_path: Path) -> None:
    from transformers import ViTMAEModel, ViTModel

    folder = save(tmp_path, "ViTMAE", "ViT", **VIT)
    pixels, vectors = ours(folder)
    again = load(EncoderSpec("image", str(folder)))
    assert np.array_equal(again.encode([again.prepare(p) for p in PICTURES]), vectors.numpy())
    masked = ViTMAEModel.from_pretrained(folder).eval()
    from transformers import ViTConfig

    plain = ViTModel(ViTConfig(**VIT, layer_norm_eps=masked.config.layer_norm_eps), add_pooling_layer=False).eval()
    plain.load_state_dict(masked.state_dict())
    torch.testing.assert_close(vectors, plain(pixels).last_hidden_state[:, 0], rtol=1e-4, atol=1e-5)
    assert used_output(folder) == "class token"


@torch.inference_mode()
def test_a_model_without_class_token_gives_the_mean_of_its_patches(tmp_path: Path) -> None:
    from transformers import IJepaForImageClassification, IJepaModel

    folder = save(tmp_path, "IJepa", "ViT", **VIT)
    pixels, vectors = ours(folder)
    model = IJepaModel.from_pretrained(folder, add_pooling_layer=False).eval()
    stored = any(name.startswith("pooler.") for name in IJepaModel.from_pretrained(folder).state_dict())
    assert not stored
    torch.testing.assert_close(vectors, model(pixels).last_hidden_state.mean(dim=1), rtol=1e-4, atol=1e-5)
    assert used_output(folder) == "mean"
    (tmp_path / "classifier").mkdir()
    classifier = IJepaForImageClassification(model.config).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    pixels, vectors = ours(add_processor(tmp_path / "classifier", "ViT"))
    torch.testing.assert_close(classifier.classifier(vectors), classifier(pixels).logits, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "head", "part"),
    [
        ("ViTMSN", "classifier", "class token"),
        ("Data2VecVision", "classifier", "pooled"),
        ("Beit", "classifier", "pooled"),
    ],
)
def test_the_classifier_of_the_same_checkpoint_reads_these_features(
    kind: str, head: str, part: str, tmp_path: Path
) -> None:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**VIT)
    classifier = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    for name, value in classifier.named_parameters():
        if "pooler" in name:
            value.copy_(torch.randn_like(value))
    classifier.save_pretrained(tmp_path)
    pixels, vectors = ours(add_processor(tmp_path, "ViT"))
    torch.testing.assert_close(classifier.get_submodule(head)(vectors), classifier(pixels).logits, rtol=1e-4, atol=1e-5)
    assert used_output(tmp_path) == part


@torch.inference_mode()
def test_mean_pooling_without_a_stored_pooler_leaves_the_class_token_out(tmp_path: Path) -> None:
    from transformers import Data2VecVisionModel

    folder = save(tmp_path, "Data2VecVision", "ViT", **VIT)
    pixels, vectors = ours(folder)
    states = Data2VecVisionModel.from_pretrained(folder).eval()(pixels).last_hidden_state
    torch.testing.assert_close(vectors, states[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modules", [("Normalize",), ("Dense", "Normalize")])
def test_modules_after_a_picture_tower_are_run(modules: tuple[str, ...], tmp_path: Path) -> None:
    import sentence_transformers
    from sentence_transformers import models
    from transformers import CLIPImageProcessor, CLIPProcessor, PreTrainedTokenizerFast

    clip = save_clip(tmp_path / "clip", "CLIP")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(clip)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(clip)
    pictures.save_pretrained(clip)
    torch.manual_seed(1)
    known = {"Normalize": models.Normalize, "Dense": lambda: models.Dense(12, 5)}
    whole = sentence_transformers.SentenceTransformer(
        modules=[models.Transformer(str(clip)), *(known[name]() for name in modules)], device="cpu"
    )
    folder = tmp_path / "whole"
    whole.save(str(folder), create_model_card=False)
    inputs = [drawn(32, 32, seed) for seed in range(3)]
    theirs = whole.encode(inputs, convert_to_numpy=True)
    encoder = load(EncoderSpec("image", str(folder)))
    vectors = encoder.encode([encoder.prepare(encoded(picture)) for picture in inputs])
    assert vectors.shape == theirs.shape == (3, describe(EncoderSpec("image", str(folder))).dim)
    np.testing.assert_allclose(vectors, theirs, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_weights_that_reach_the_vector_must_be_there(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = add_processor(save_clip(tmp_path, "Siglip"), "Siglip")
    stored = load_file(folder / "model.safetensors")
    del stored["vision_model.head.probe"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"lacks weights its config.json asks for: vision_model.head.probe"):
        load(EncoderSpec("image", str(folder)))


def test_a_model_that_draws_at_random_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import ViTModel

    folder = save(tmp_path, "ViT", "ViT", **VIT)
    plain = ViTModel.forward

    def drawing(self: ViTModel, pixel_values: torch.Tensor | None = None, **others: object) -> object:
        assert pixel_values is not None
        return plain(self, pixel_values=pixel_values * torch.rand_like(pixel_values), **others)

    monkeypatch.setattr(ViTModel, "forward", drawing)
    with pytest.raises(JobError, match="draws at random"):
        load(EncoderSpec("image", str(folder)))
