"""Many rows of one picture: encoded once, and never on both sides of a split."""

import json

import numpy as np
import pytest
from PIL import Image

from barycenter.fusion.splits import fold_of
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.tasks.data.rows import RowReader
from barycenter.tasks.embed.settings import find_execution
from barycenter.tasks.embed.stage import embed_setting
from barycenter.tasks.embed.worker import EmbedWorker, ShardJob
from barycenter.tasks.run.context import Run

PICTURES, QUESTIONS, CLASSES = 60, 12, 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Pictures with a class drawn at random; every question about one has its class."""
    folder = tmp_path_factory.mktemp("vqa")
    rng = np.random.default_rng(0)
    classes = rng.integers(CLASSES, size=PICTURES)
    for number in range(PICTURES):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / f"{number}.png")
    picture_of = rng.permutation(np.repeat(np.arange(PICTURES), QUESTIONS))
    rows = [
        {"id": f"q{row}", "image": f"{picture}.png", "picture": f"p{picture}", "label": f"c{classes[picture]}"}
        for row, picture in enumerate(picture_of)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def embedded(corpus, out, group_by):
    """All rows, embedded in this process, and how many pictures were encoded."""
    job = {
        "corpus": {
            "path": str(corpus / "rows.jsonl"), "key": "id", "keep": ["label", "picture"], "rows_per_shard": 400,
        },
        "inputs": {"image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 16}},
        "output": {"path": str(out)},
        "train": {"target": "label", "group_by": group_by},
    }  # fmt: skip
    run = Run(Job.model_validate(job))
    worker = EmbedWorker(embed_setting(run, "image", find_execution(run, "image", WorkerAllocation(1, 1))))
    encoded = [worker.run(ShardJob(shard, 16))["encoded"] for shard in run.shards]
    return RowReader.of(run).read_all(run.shards), encoded


def accuracy(rows, test):
    """Of the nearest row on the other side, by the picture's vector."""
    vectors, labels = rows.views["image"], np.array(rows.kept.column("label").to_pylist())
    distance = ((vectors[test][:, None] - vectors[~test][None]) ** 2).sum(axis=2)
    return float((labels[~test][distance.argmin(axis=1)] == labels[test]).mean())


def sides(rows):
    """The test rows, then those of every fold."""
    fold = fold_of(rows.groups, 5)
    return [rows.test, *(fold == number for number in range(5))]


def test_a_picture_is_encoded_once(corpus, tmp_path):
    rows, encoded = embedded(corpus, tmp_path, "picture")
    assert len(rows.keys) == PICTURES * QUESTIONS
    assert encoded == [PICTURES, 0]


def test_labels_drawn_at_random_are_not_learned_where_pictures_stay_on_one_side(corpus, tmp_path):
    rows, _ = embedded(corpus, tmp_path, "picture")
    pictures = np.array(rows.kept.column("picture").to_pylist())
    for side in sides(rows):
        assert 0 < side.sum() < len(side)
        assert not set(pictures[side]) & set(pictures[~side])
    by_fold = np.mean([accuracy(rows, side) for side in sides(rows)[1:]])
    assert abs(by_fold - 1 / CLASSES) < 3 * np.sqrt(0.25 * 0.75 / PICTURES)


def test_and_are_learned_where_they_do_not(corpus, tmp_path):
    rows, _ = embedded(corpus, tmp_path, None)
    assert min(accuracy(rows, side) for side in sides(rows)) > 0.95
