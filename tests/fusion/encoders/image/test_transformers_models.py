from pathlib import Path

import numpy as np
import pytest
import torch

from barycenter.fusion.encoders import EncoderSpec, Preprocessing, describe, load
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded
from tests.fusion.encoders.text.test_encoder import save_clip

VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "image_size": 32,
    "patch_size": 8,
}
PROCESSORS = {
    "ViT": {"size": {"height": 32, "width": 32}},
    "Bit": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    "CLIP": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "Siglip": {"size": {"height": 32, "width": 32}},
    "ConvNext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
}


def add_processor(folder: Path, kind: str) -> Path:
    import transformers

    getattr(transformers, f"{kind}ImageProcessor")(**PROCESSORS[kind]).save_pretrained(folder)
    return folder


def save(folder: Path, kind: str, processor: str, **changes: object) -> Path:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**changes)
    getattr(transformers, f"{kind}Model")(config).eval().save_pretrained(folder)
    return add_processor(folder, processor)


def outputs(folder: Path, model=None):
    """What transformers' own processor and model give, and what ours does, for the same three pictures."""
    from transformers import AutoImageProcessor, AutoModel

    pictures = [drawn(90, 60, 0), drawn(50, 80, 1), drawn(64, 64, 2)]
    model = model or AutoModel.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")["pixel_values"]
    run = getattr(model, "get_image_features", model)
    with torch.inference_mode():
        theirs = run(pixel_values=pixels)
    spec = EncoderSpec("image", str(folder))
    encoder = load(spec)
    ours = encoder.encode([encoder.prepare(encoded(p)) for p in pictures])
    assert ours.shape == (3, describe(spec).dim)
    return theirs, ours


def close(theirs: torch.Tensor, ours: np.ndarray) -> None:
    expected = theirs.flatten(1).numpy()
    cosine = (expected * ours).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(ours, axis=1)
    assert cosine.min() > 0.999
    assert np.abs(ours - expected).max() < 0.05 * np.abs(expected).max()


def test_vit_with_its_pooler(tmp_path):
    theirs, ours = outputs(save(tmp_path, "ViT", "ViT", **VIT))
    close(theirs.pooler_output, ours)


def test_vit_without_a_trained_pooler_gives_cls(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    classifier = ViTForImageClassification(ViTConfig(**VIT)).eval()
    classifier.save_pretrained(tmp_path)
    theirs, ours = outputs(add_processor(tmp_path, "ViT"), classifier.vit)
    close(theirs.last_hidden_state[:, 0], ours)
    assert describe(EncoderSpec("image", str(tmp_path))).fingerprint["features"] == "class token"


def test_dinov2(tmp_path):
    changes = {key: value for key, value in VIT.items() if key != "intermediate_size"}
    theirs, ours = outputs(save(tmp_path, "Dinov2", "Bit", **changes))
    close(theirs.pooler_output, ours)


@pytest.mark.parametrize(("family", "dim"), [("CLIP", 12), ("Siglip", 16)])
def test_picture_towers(family, dim, tmp_path):
    folder = add_processor(save_clip(tmp_path, family), family)
    theirs, ours = outputs(folder)
    assert ours.shape[1] == dim
    close(theirs.pooler_output, ours)


def save_naflex(folder: Path) -> Path:
    from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    torch.manual_seed(0)
    shape = {key: value for key, value in VIT.items() if key != "image_size"}
    Siglip2VisionModel(Siglip2VisionConfig(num_patches=16, **shape)).eval().save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=20).save_pretrained(folder)
    return folder


def test_pictures_as_patches_of_their_own_aspect_ratio(tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    folder = save_naflex(tmp_path)
    pictures = [drawn(90, 60, 0), drawn(50, 180, 1), drawn(64, 64, 2)]
    encoder = load(EncoderSpec("image", str(folder)))
    prepared = [encoder.prepare(encoded(picture)) for picture in pictures]
    with torch.inference_mode():
        given = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")
        theirs = AutoModel.from_pretrained(folder).eval()(**given).pooler_output
    assert len({tuple(row) for row in given["spatial_shapes"].tolist()}) == 3
    close(theirs, encoder.encode(prepared))
    close(theirs[:1], encoder.encode(prepared[:1]))
    assert describe(EncoderSpec("image", str(folder))).dim == encoder.dim == 16


def test_patches_leave_no_place_for_a_size(tmp_path):
    size = Preprocessing(40, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(JobError, match="aspect ratio") as caught:
        describe(EncoderSpec("image", str(save_naflex(tmp_path)), preprocessing=size))
    assert caught.value.key == "preprocessing"


def test_convolutional_models(tmp_path):
    theirs, ours = outputs(save(tmp_path, "ConvNext", "ConvNext", hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1]))
    close(theirs.pooler_output, ours)
    (tmp_path / "resnet").mkdir()
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    theirs, ours = outputs(save(tmp_path / "resnet", "ResNet", "ConvNext", **resnet))
    close(theirs.pooler_output, ours)


def test_preprocessing_is_needed_or_given(tmp_path):
    folder = save(tmp_path, "ViT", "ViT", **VIT)
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    with pytest.raises(JobError, match=r"preprocessing: .*give resize, crop, mean, std"):
        describe(EncoderSpec("image", str(folder)))
    given = Preprocessing(36, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert load(EncoderSpec("image", str(folder), preprocessing=given)).dim == 16


@pytest.mark.parametrize(
    ("processor", "changes"),
    [
        ("ViT", {"do_rescale": False}),
        ("MobileViT", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("ViT", {"do_convert_rgb": True, "size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
    ],
)
def test_processors_that_do_more_are_run_as_they_are(processor, changes, tmp_path):
    import transformers

    folder = save(tmp_path, "ViT", "ViT", **VIT)
    name = f"{processor}ImageProcessor"
    own = getattr(transformers, name)(**{"size": {"height": 32, "width": 32}, **changes})
    own.save_pretrained(folder)
    pictures = [drawn(90, 60, 0), drawn(50, 80, 1), drawn(64, 64, 2)]
    pixels = own(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).pooler_output
    spec = EncoderSpec("image", str(folder))
    encoder = load(spec)
    ours = encoder.encode([encoder.prepare(encoded(picture)) for picture in pictures])
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)
    assert describe(spec).fingerprint["transform"]["processor"].startswith(name)


def test_processors_that_leave_different_sizes_are_refused(tmp_path):
    import transformers

    folder = save(tmp_path, "ViT", "ViT", **VIT)
    transformers.DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    with pytest.raises(
        JobError, match=r"preprocessing: DetrImageProcessor\w* leaves pictures in different sizes; give"
    ):
        describe(EncoderSpec("image", str(folder)))
    given = Preprocessing(36, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert load(EncoderSpec("image", str(folder), preprocessing=given)).dim == 16


def test_text_model_for_pictures_is_refused(tiny_bert):
    with pytest.raises(JobError, match=r"^(encoder|preprocessing): "):
        describe(EncoderSpec("image", str(tiny_bert)))
