"""Of the encoders on this machine the likeliest one that can be used is proposed, with the reason."""

from pathlib import Path

import pytest

from barycenter.fusion.encoders.local_models import LocalModel
from barycenter.fusion.errors import JobError
from barycenter.tasks.planning.proposal import encoders
from barycenter.tasks.planning.proposal.encoders import LocalEncoders

TEXT, IMAGE = frozenset({"text"}), frozenset({"image"})


def local(kinds, encoder, size=1_000_000, **options):
    return LocalModel(kinds, encoder, Path("/cache") / encoder, options.pop("weights", None), size, **options)


@pytest.fixture
def choose(monkeypatch):
    """Chooses among models, some of which cannot be used."""

    def call(kind, *models, unusable=()):
        def describe(spec):
            if any(name in (spec.encoder or "") for name in unusable):
                raise JobError("encoder", "it carries its own code")

        monkeypatch.setattr(encoders, "cached_models", lambda: list(models))
        monkeypatch.setattr(encoders, "models_near", lambda _: [])
        monkeypatch.setattr(encoders, "cached_description", describe)
        return LocalEncoders([]).choose(kind)

    return call


def test_without_a_model_a_built_in_encoder(choose):
    chosen = choose("text", local(IMAGE, "org/vit"))
    assert (chosen.encoder, chosen.weights) == ("builtin/hashing", None)
    assert chosen.why == "built in; no model is in the hub's cache or in a folder near"
    assert choose("image").encoder == "builtin/descriptor"


def test_one_made_for_sentences_and_then_the_smallest(choose):
    models = [
        local(TEXT, "org/bert", 1_000),
        local(TEXT, "org/large", 9_000_000, sentences=True),
        local(TEXT, "org/small", 2_500_000, sentences=True),
        local(TEXT | IMAGE, "org/clip", 500_000),
    ]
    chosen = choose("text", *models)
    assert chosen.encoder == "org/small"
    assert chosen.why == "in the hub's cache, 2.5 MB; also there: org/large, org/bert, org/clip"


def test_one_that_cannot_be_used_is_passed_by(choose):
    models = [local(IMAGE, "org/own-code", 1), local(IMAGE, "org/vit", 2)]
    assert choose("image", *models, unusable=["own-code"]).encoder == "org/vit"
    chosen = choose("image", *models, unusable=["org"])
    assert (chosen.encoder, chosen.why) == ("builtin/descriptor", "built in; org/own-code: it carries its own code")


def test_a_weights_file_is_named(choose):
    chosen = choose("image", local(IMAGE, "torchvision/mobilenet_v2", weights=Path("/w/mobilenet_v2.safetensors")))
    assert (chosen.encoder, chosen.weights) == ("torchvision/mobilenet_v2", "/w/mobilenet_v2.safetensors")
    assert chosen.why == "on this machine, 1.0 MB"
