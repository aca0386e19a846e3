import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from barycenter.fusion.encoders import EncoderSpec, Preprocessing, describe, load
from barycenter.fusion.encoders.image.encoder import Standardize
from barycenter.fusion.encoders.image.torchvision_models import find_classifier, load_classifier
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded

SMALL = Preprocessing(80, 75, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def saved(tmp_path):
    def save(architecture: str, classes: int = 7, **changes) -> tuple[torch.nn.Module, EncoderSpec]:
        torch.manual_seed(0)
        quiet = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
        model = models.get_model(architecture, weights=None, num_classes=classes, **quiet).eval()
        file = tmp_path / f"{architecture}.safetensors"
        save_file(model.state_dict(), file)
        return model, EncoderSpec("image", f"torchvision/{architecture}", weights=str(file), **changes)

    return save


@pytest.mark.parametrize(
    ("architecture", "classifier", "dim"),
    [
        ("alexnet", "classifier.6", 4096), ("vgg16", "classifier.6", 4096), ("squeezenet1_1", "classifier.1", 512),
        ("densenet121", "classifier", 1024), ("inception_v3", "fc", 2048), ("googlenet", "fc", 1024),
        ("vit_b_16", "heads.head", 768), ("swin_t", "head", 768), ("swin_v2_t", "head", 768),
        ("maxvit_t", "classifier.5", 512), ("efficientnet_b0", "classifier.1", 1280),
        ("convnext_tiny", "classifier.2", 768), ("regnet_y_400mf", "fc", 440), ("mnasnet0_5", "classifier.1", 1280),
        ("mobilenet_v3_small", "classifier.3", 1024), ("shufflenet_v2_x0_5", "fc", 1024), ("resnet18", "fc", 512),
        ("resnext50_32x4d", "fc", 2048),
    ],
)  # fmt: skip
def test_the_classifier_is_found(architecture, classifier, dim):
    found = find_classifier(architecture, (299, 299) if architecture == "inception_v3" else (224, 224))
    assert (found.name, found.dim) == (classifier, dim)


@pytest.mark.parametrize(
    "architecture",
    ["mobilenet_v2", "shufflenet_v2_x0_5", "googlenet", "resnet18"],
)
def test_features_times_classifier_are_the_scores(architecture, saved):
    model, spec = saved(architecture, preprocessing=SMALL)
    encoder = load(spec)
    pictures = [encoder.prepare(encoded(drawn(120, 90, seed))) for seed in range(3)]
    with torch.inference_mode():
        scores = model(Standardize(encoder.transform)(torch.from_numpy(np.stack(pictures))))
        ours = model.get_submodule(find_classifier(architecture, (75, 75)).name)(
            torch.from_numpy(encoder.encode(pictures))
        )
    assert describe(spec).dim == encoder.dim == encoder.encode(pictures).shape[1]
    torch.testing.assert_close(ours, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "swin_t"])
def test_other_families_encode(architecture, saved):
    _, spec = saved(architecture)
    encoder = load(spec)
    vectors = encoder.encode([encoder.prepare(encoded(drawn(240, 230, seed))) for seed in range(2)])
    assert vectors.shape == (2, describe(spec).dim)
    assert np.isfinite(vectors).all()


def test_pth_with_wrappings_gives_the_same_vectors(saved, tmp_path):
    model, spec = saved("shufflenet_v2_x0_5", preprocessing=SMALL)
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, wrapped)
    other = EncoderSpec("image", spec.encoder, weights=str(wrapped), preprocessing=SMALL)
    encoder = load(spec)
    picture = encoder.prepare(encoded(drawn()))
    assert np.array_equal(encoder.encode([picture]), load(other).encode([picture]))
    assert describe(spec).dim == describe(other).dim


def test_identity_follows_weights_and_preprocessing_not_the_path(saved, tmp_path):
    _, spec = saved("shufflenet_v2_x0_5")
    to_device = tmp_path / "elsewhere.safetensors"
    to_device.write_bytes((tmp_path / "shufflenet_v2_x0_5.safetensors").read_bytes())
    assert describe(EncoderSpec("image", spec.encoder, weights=str(to_device))) == describe(spec)
    assert str(tmp_path) not in str(describe(spec))
    resized = EncoderSpec("image", spec.encoder, weights=spec.weights, preprocessing=SMALL)
    assert describe(resized).encoder_id != describe(spec).encoder_id


def refused(spec: EncoderSpec) -> JobError:
    with pytest.raises(JobError) as caught:
        describe(spec)
    assert "\n" not in str(caught.value)
    return caught.value


def test_weights_that_do_not_fit_are_named(saved):
    _, spec = saved("shufflenet_v2_x0_5")
    wrong = refused(EncoderSpec("image", "torchvision/mobilenet_v2", weights=spec.weights))
    assert wrong.key == "weights"
    assert "features.0.0.weight" in wrong.problem
    wider = refused(EncoderSpec("image", "torchvision/shufflenet_v2_x1_0", weights=spec.weights))
    assert "instead of" in wider.problem


def test_unusable_weight_files(tmp_path):
    def problem(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        error = refused(EncoderSpec("image", "torchvision/resnet18", weights=str(tmp_path / name)))
        assert error.key == "weights"
        return error.problem

    assert "cannot be read" in problem("broken.safetensors", b"\0" * 30)
    assert "cannot be read" in problem("broken.pth", b"not a checkpoint")
    assert "neither" in problem("weights.onnx", b"x")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pth")
    assert refused(EncoderSpec("image", "torchvision/resnet18", weights=str(tmp_path / "pickled.pth"))).key == "weights"
    assert "no such file" in refused(EncoderSpec("image", "torchvision/resnet18", weights="absent.pth")).problem


def test_unknown_architecture_names_the_nearest():
    assert "mobilenet_v2" in refused(EncoderSpec("image", "torchvision/mobilnet_v2")).problem


def test_download_that_fails_says_what_to_do(monkeypatch, tmp_path):
    def unreachable(*_args, **_options):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    error = refused(EncoderSpec("image", "torchvision/resnet18"))
    assert error.key == "weights"
    assert "local .safetensors" in error.problem


@pytest.mark.shared
def test_mobilenet_names_the_photographs(shared):
    weights = shared / "weights/mobilenet_v2/mobilenet_v2.safetensors"
    spec = EncoderSpec("image", "torchvision/mobilenet_v2", weights=str(weights))
    classifier, transform, _ = load_classifier(spec)
    labels = (shared / "data/smoke_photos/imagenet_labels.txt").read_text().splitlines()[1:]
    encoder = load(spec)
    named = {}
    for name in ("parrot", "cat_720p", "hot_dog"):
        pixels = encoder.prepare((shared / f"data/smoke_photos/{name}.jpg").read_bytes())
        with torch.inference_mode():
            read = Standardize(transform)(torch.from_numpy(pixels[None]))
            named[name] = labels[int(classifier.eval()(read).argmax())].lower()
    assert "macaw" in named["parrot"] or "parrot" in named["parrot"] or "lorikeet" in named["parrot"]
    assert "cat" in named["cat_720p"]
    assert "hotdog" in named["hot_dog"].replace(" ", "")


@pytest.mark.shared
def test_reduced_decode_hardly_moves_the_vector(shared):
    weights = shared / "weights/mobilenet_v2/mobilenet_v2.safetensors"
    encoder = load(EncoderSpec("image", "torchvision/mobilenet_v2", weights=str(weights)))
    large = []
    for name in ("parrot", "cat_720p", "hot_dog", "owl"):
        photograph = Image.open(shared / f"data/smoke_photos/{name}.jpg").convert("RGB").resize((2000, 1500))
        large.append(photograph)
    reduced = encoder.encode([encoder.prepare(encoded(p, "JPEG", quality=92)) for p in large])
    full = encoder.encode([encoder.transform.pixels(p) for p in large])
    cosine = (reduced * full).sum(1) / np.linalg.norm(reduced, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.995
