import json

import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, PCA, Autoencoder, Contrastive, Identity, Joint, KernelCCA, Procrustes, load


def make_views(inputs=2, n=200):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 2))
    names = ["text", "bild ü", "sound"][:inputs]
    return {name: shared @ rng.normal(size=(2, 4)) + rng.normal(size=(n, 4)) for name in names}


EVERY = [
    Identity(),
    PCA(3),
    Procrustes(3),
    CCA(3),
    Joint(3, gamma=0.2),
    KernelCCA(3, n_features=20, folds=2),
    Autoencoder(3, width=8, epochs=2),
    Contrastive(3, width=8, epochs=2),
]


@pytest.mark.parametrize("alignment", EVERY, ids=lambda a: a.method)
@pytest.mark.parametrize("inputs", [2, 3])
def test_a_loaded_alignment_is_bit_identical(alignment, inputs, tmp_path):
    views = make_views(inputs)
    alignment.fit(views)
    alignment.save(tmp_path / "one")
    back = load(tmp_path / "one")
    assert type(back) is type(alignment)
    assert back.get_params() == alignment.get_params()
    assert back.regularization_ == alignment.regularization_
    assert np.array_equal(back.heldout_correlations_, alignment.heldout_correlations_, equal_nan=True)
    for name, values in back.transform(views).items():
        assert np.array_equal(values, alignment.transform(views)[name])
    for average in ("mean", "spherical", "posterior"):
        assert np.array_equal(back.fuse(views, average), alignment.fuse(views, average))
        part = {"text": views["text"]}
        assert np.array_equal(back.fuse(part, average), alignment.fuse(part, average))
    back.save(tmp_path / "two")
    for file in ("alignment.safetensors", "alignment.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_same_fit_saves_the_same_bytes(tmp_path):
    views = make_views()
    for folder in ("one", "two"):
        Joint(3).fit(views).save(tmp_path / folder)
    for file in ("alignment.safetensors", "alignment.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_is_not_an_alignment_is_refused_with_a_reason(tmp_path):
    with pytest.raises(ValueError, match="no readable alignment"):
        load(tmp_path / "nowhere")
    CCA(2).fit(make_views()).save(tmp_path)
    header = json.loads((tmp_path / "alignment.json").read_text())

    def write(**changes):
        (tmp_path / "alignment.json").write_text(json.dumps(header | changes))

    for changes, message in [
        ({"format": "pickle"}, "not of format barycenter-alignment"),
        ({"version": 99}, "format version 99"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"sha256": "0"}, "damaged"),
        ({"params": {"colour": 1}}, "damaged"),
        ({"fitted": {}}, "damaged"),
        ({"inputs": {"text": 4, "x": 4, "y": 4}}, "damaged"),
    ]:
        write(**changes)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    (tmp_path / "alignment.json").write_text("[]")
    with pytest.raises(ValueError, match="its JSON is no object"):
        load(tmp_path)
    write()
    payload = bytearray((tmp_path / "alignment.safetensors").read_bytes())
    payload[-1] ^= 1
    (tmp_path / "alignment.safetensors").write_bytes(payload)
    with pytest.raises(ValueError, match=r"alignment\.safetensors is damaged"):
        load(tmp_path)
