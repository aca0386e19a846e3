"""The requirements for training images suffice: a Python that sees these packages alone reads, encodes and trains."""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from barycenter.fusion.alignment import CCA
from barycenter.fusion.encoders import EncoderSpec, describe
from tests.fusion.features_on_disk import write_features

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "infra" / "deploy" / "requirements-training.txt"
CODE = """
import sys
sys.path.append(sys.argv[1])
from barycenter import FusedDataset, Fuser, LinearHead
batches = list(FusedDataset(sys.argv[2], columns=["fused", "count"], batch_size=8))
fuser = Fuser.load(sys.argv[3])
vectors = fuser.encode({"text": ["a red crab", None], "vector": [[1.0, 2.0, 3.0], [0.5, 1.0, 2.0]]})
LinearHead().fit([[0.0, 1.0], [1.0, 0.0]] * 6, ["a", "b"] * 6)
for name in ("ray", "prefect", "s3fs"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported: nothing is shown")
print(sum(len(batch["fused"]) for batch in batches), vectors.shape)
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> set[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return {canonical(line.strip()) for line in lines if line.strip() and not line.startswith("#")}


def needed(names: set[str]) -> set[str]:
    """These distributions and all that they require here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonical(waiting.pop())
        if name not in found:
            found.add(name)
            required = map(Requirement, distribution(name).requires or [])
            waiting += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of packages that has what the list asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "barycenter").symlink_to(ROOT / "barycenter")
    for name in needed(listed()):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            place, link = Path(str(found.locate_file(top))), folder / top
            if place.exists() and not link.exists():
                link.symlink_to(place)
    return folder


def write_output(folder: Path) -> None:
    """What a run over a text and a vector leaves for the fuser."""
    specs = {"text": EncoderSpec("text", "builtin/hashing"), "vector": EncoderSpec("vector", None, width=3)}
    described = {name: describe(spec) for name, spec in specs.items()}
    rng = np.random.default_rng(0)
    views = {name: rng.standard_normal((40, each.dim)) for name, each in described.items()}
    CCA(dim=2, regularization=0.1, folds=1).fit(views).save(folder / "alignment" / "a1")
    inputs = {
        name: {
            "kind": name,
            "encoder": specs[name].encoder,
            "encoder_id": each.encoder_id,
            "dim": each.dim,
            "fingerprint": each.fingerprint,
            "spec": {"encoder": specs[name].encoder, "weights": None},
        }
        for name, each in described.items()
    }
    manifest = {"number": 1, "version": "v", "key": "id", "dim": 2, "dtype": "float32", "inputs": inputs, "files": []}
    manifest |= {"alignment_id": "a1", "average": {"method": "mean", "weights": None}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.filterwarnings("ignore:.*rank:UserWarning")
def test_the_list_is_all_that_a_training_image_needs(site, tmp_path):
    write_features(tmp_path / "features", [12, 8])
    write_output(tmp_path / "run")
    words = [sys.executable, "-I", "-S", "-c", CODE, str(site), str(tmp_path / "features"), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "20 (2, 2)"


def test_every_package_of_the_list_is_a_dependency_of_the_project():
    required = {canonical(Requirement(line).name) for line in distribution("barycenter").requires or []}
    assert listed() <= required
