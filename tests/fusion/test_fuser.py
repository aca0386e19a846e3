import copy
import io
import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from barycenter.fusion.alignment import Joint
from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import RunError
from barycenter.fusion.fuser import Fuser

WORDS = ("crab", "boat", "kite", "plate", "cushion", "badge", "red", "blue", "green", "winter")


def picture(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


TEXTS = [" ".join(np.random.default_rng(seed).choice(WORDS, 3)) for seed in range(40)]
PICTURES = [picture(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes what a run leaves behind, but for the features."""
    specs = {"text": EncoderSpec("text", "builtin/hashing"), "image": EncoderSpec("image", "builtin/descriptor")}
    values = {"text": TEXTS, "image": PICTURES}
    views = {name: embed(load(spec), values[name], batch_size=64, threads=1).vectors for name, spec in specs.items()}
    alignment, saved, inputs = Joint(dim=6).fit(views), tmp_path_factory.mktemp("alignment") / "a1", {}
    alignment.save(saved)
    for name, spec in specs.items():
        description = describe(spec)
        inputs[name] = {
            "kind": name, "encoder": spec.encoder, "encoder_id": description.encoder_id, "dim": description.dim,
            "fingerprint": description.fingerprint, "spec": {"encoder": spec.encoder, "weights": None},
        }  # fmt: skip

    def write(folder, average, dtype="float32"):
        shutil.copytree(saved, folder / "alignment" / "a1")
        manifest = {
            "number": 1, "version": "v", "key": "id", "dim": 6, "dtype": dtype, "inputs": inputs, "files": [],
            "alignment_id": "a1", "average": average,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return alignment, {name: rows.copy() for name, rows in views.items()}

    return write


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
@pytest.mark.parametrize(
    "average",
    [
        {"method": "mean", "weights": None},
        {"method": "weighted", "weights": {"text": 3.0, "image": 1.0}},
        {"method": "spherical", "weights": None},
        {"method": "posterior", "weights": None},
    ],
)
def test_the_manifests_average_over_any_inputs(tmp_path, average, write):
    alignment, views = write(tmp_path, average)
    views["text"][3], views["image"][5] = np.nan, np.nan
    expected = alignment.fuse(views, average=average["method"], weights=average["weights"])
    texts, pictures = list(TEXTS), list(PICTURES)
    texts[3], pictures[5] = None, b"no picture"
    fuser = Fuser.load(tmp_path)
    np.testing.assert_allclose(fuser.encode({"text": texts, "image": pictures}), expected, atol=1e-5)
    np.testing.assert_allclose(fuser.encode({"image": pictures[3:4]})[0], expected[3], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_pictures_may_be_paths_bytes_or_pil_images(tmp_path, write):
    write(tmp_path, {"method": "mean", "weights": None}, "float16")
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    opened = Image.open(tmp_path / "a.png")
    vectors = Fuser.load(tmp_path).encode(
        {"image": [PICTURES[0], tmp_path / "a.png", str(tmp_path / "a.png"), opened, tmp_path / "gone.png"]}
    )
    assert vectors.dtype == np.float16
    assert all(np.array_equal(vectors[0], vectors[row]) for row in range(1, 4))
    assert np.isnan(vectors[4]).all()


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_threads_are_kept_between_calls_and_a_copy_has_its_own(tmp_path, write):
    write(tmp_path, {"method": "mean", "weights": None})
    fuser = Fuser.load(tmp_path)
    first = fuser.encode({"text": TEXTS[:3]})
    running = fuser._pipelines["text"]
    assert np.array_equal(fuser.encode({"text": TEXTS[:3]}), first)
    assert fuser._pipelines["text"] is running
    assert np.array_equal(copy.copy(fuser).encode({"text": TEXTS[:3]}), first)
    fuser.close()
    assert np.array_equal(fuser.encode({"text": TEXTS[:3]}), first)


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_several_values_of_a_row_are_averaged_and_several_columns_joined(tmp_path, write):
    write(tmp_path, {"method": "mean", "weights": None})
    fuser = Fuser.load(tmp_path)
    one, two, both, some, none = fuser.embed(
        {"text": ["a crab", "a boat", ["a crab", "a boat"], ["a crab", None], []]}
    )["text"].vectors
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    np.testing.assert_array_equal(some, one)
    assert not none.any()
    fuser.manifest.inputs["text"]["spec"]["column"] = ["name", "about"]
    joined, whole = fuser.embed({"text": [["a crab", None, "red"], "a crab\nred"]})["text"].vectors
    np.testing.assert_array_equal(joined, whole)


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_from_s3(tmp_path, s3_server, s3_bucket, write):
    import s3fs

    write(tmp_path, {"method": "mean", "weights": None})
    remote = s3fs.S3FileSystem(endpoint_url=s3_server)
    remote.put(str(tmp_path), f"{s3_bucket}/out", recursive=True)
    there = Fuser.load(f"s3://{s3_bucket}/out", filesystem=remote).encode({"text": TEXTS[:2]})
    np.testing.assert_array_equal(there, Fuser.load(tmp_path).encode({"text": TEXTS[:2]}))


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_what_does_not_fit_is_reported(tmp_path, write):
    write(tmp_path, {"method": "mean", "weights": None})
    fuser = Fuser.load(tmp_path)
    with pytest.raises(ValueError, match="unknown input sound; the inputs are text, image"):
        fuser.encode({"sound": [b""]})
    with pytest.raises(ValueError, match="different lengths"):
        fuser.encode({"text": ["a"], "image": []})
    with pytest.raises(ValueError, match="no input is given; the inputs are text, image"):
        fuser.encode({})
    with pytest.raises(TypeError, match=r"expected \{input: values\}, got list"):
        fuser.encode(["a crab"])
    with pytest.raises(TypeError, match=r"text: expected one value a row in a list, got str; write \[value\]"):
        fuser.encode({"text": "a crab"})
    with pytest.raises(TypeError, match="image: row 1: expected a path, encoded bytes or a PIL image, got float"):
        fuser.encode({"image": [PICTURES[0], 1.5]})
    with pytest.raises(ValueError, match="encoders: unknown input txt; the inputs are text, image"):
        Fuser.load(tmp_path, encoders={"txt": "builtin/hashing"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    entry = manifest["inputs"]["text"]
    entry["encoder_id"], entry["fingerprint"] = "other", entry["fingerprint"] | {"dim": 7}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"input text: builtin/hashing is not the encoder .* \(dim differ\)"):
        Fuser.load(tmp_path)
    entry["fingerprint"] = describe(EncoderSpec("text", "builtin/hashing")).fingerprint | {"adopted": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Fuser.load(tmp_path)
    versions = {"other": [{"machine": "any", "libraries": {"scikit-learn": "0.1"}}]}
    (tmp_path / "plan.json").write_text(json.dumps({"versions": versions}))
    with pytest.warns(UserWarning, match="other library versions"):
        Fuser.load(tmp_path)
    with pytest.raises(RunError, match="nothing has been committed"):
        Fuser.load(tmp_path / "nowhere")
