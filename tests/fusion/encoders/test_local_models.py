"""Models on this machine are found by their files alone."""

import json
import sys
from pathlib import Path

import pytest

from barycenter.fusion.encoders.local_models import cached_models, models_near


def model(folder: Path, config: dict | None = None, modules: list | None = None, weights: str = "model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("modules.json", modules)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    (folder / weights).parent.mkdir(exist_ok=True)
    (folder / weights).write_bytes(b"12345")
    return folder


def found(models):
    return {each.encoder: (sorted(each.kinds), each.bytes, each.sentences) for each in models}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(name, *args, commit="abc", ref="abc", **kwargs):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        if ref is not None:
            (repository / "refs").mkdir(parents=True)
            (repository / "refs" / "main").write_text(ref)
        return model(repository / "snapshots" / commit, *args, **kwargs)

    return add


def test_models_of_the_hubs_cache(cache):
    transformer = [
        {"type": "sentence_transformers.models.Transformer"},
        {"type": "sentence_transformers.models.Pooling"},
    ]
    cache("org/sentences", {"model_type": "bert"}, transformer)
    cache("org/dino", {"model_type": "dinov2"}, weights="pytorch_model.bin")
    cache("clip", {"model_type": "clip"})
    cache(
        "org/clip-sentences",
        None,
        [{"type": "sentence_transformers.models.CLIPModel"}],
        weights="0_CLIPModel/m.safetensors",
    )
    cache("org/llm", {"model_type": "llama"})
    cache("org/elsewhere", {"model_type": "bert"}, ref="def")
    cache("org/no-ref", {"model_type": "bert"}, ref=None)
    cache("org/config-only", {"model_type": "bert"}, weights="readme.md")
    cache("org/odd", [1], {"a": 1})
    assert found(cached_models()) == {
        "clip": (["image", "text"], 5, False),
        "org/clip-sentences": (["image", "text"], 5, True),
        "org/dino": (["image"], 5, False),
        "org/sentences": (["text"], 5, True),
    }


def test_no_cache_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert cached_models() == []


def test_folders_near(tmp_path):
    model(tmp_path / "mine", {"model_type": "vit"})
    model(tmp_path / "models" / "org" / "small", {"model_type": "mpnet"})
    model(tmp_path / ".hidden", {"model_type": "vit"})
    model(tmp_path / "photos" / "deep" / "deeper", {"model_type": "vit"})
    for name in ("mobilenet_v2.safetensors", "resnet50-11ad3fa6.pth", "mine.safetensors"):
        model(tmp_path / "weights" / "a", weights=name)
    models = models_near([tmp_path, tmp_path, tmp_path / "none"])
    assert found(models) == {
        str(tmp_path / "mine"): (["image"], 5, False),
        str(tmp_path / "models" / "org" / "small"): (["text"], 5, False),
        "torchvision/mobilenet_v2": (["image"], 5, False),
        "torchvision/resnet50": (["image"], 5, False),
    }
    weights = {each.encoder: each.weights for each in models}
    assert weights["torchvision/resnet50"] == tmp_path / "weights" / "a" / "resnet50-11ad3fa6.pth"
    assert weights[str(tmp_path / "mine")] is None


def test_neither_torch_nor_transformers_is_needed():
    import subprocess

    code = "import sys; from barycenter.fusion.encoders import local_models as m; m.cached_models(); m.models_near([])"
    code += "; assert not {'torch', 'transformers'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
