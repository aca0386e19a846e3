import hashlib
import json

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from barycenter.fusion.encoders.base import EncoderSpec
from barycenter.fusion.encoders.builtin import DescriptorEncoder, HashingEncoder
from barycenter.infra.demo import OCCASIONS, PATTERNS, demo_job, write_demo_corpus
from barycenter.infra.job.models import Job


def read(metadata):
    return [json.loads(line) for line in metadata.read_text().splitlines()]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_demo_corpus(tmp_path_factory.mktemp("demo"), rows=900)


def condition(corpus, name):
    path = corpus.parent / name
    if not path.exists():
        return "missing"
    if not path.stat().st_size:
        return "zero bytes"
    try:
        with Image.open(path) as picture:
            picture.load()
    except UnidentifiedImageError:
        return "no picture"
    except OSError:
        return "truncated"
    return "good"


def test_rows_are_what_the_job_reads(corpus):
    rows = read(corpus)
    assert len(rows) == 900
    assert len({row["id"] for row in rows}) == 900
    job = Job.model_validate(demo_job(corpus, corpus.parent / "out"))
    assert list(job.inputs) == ["text", "image"]
    assert job.corpus.key == "id"
    read_columns = {column for columns in job.required_columns().values() for column in columns}
    assert read_columns <= set(rows[0])


def test_both_halves_of_every_label_occur(corpus):
    labels = {row["label"] for row in read(corpus)}
    assert labels == {f"{occasion} {pattern}" for occasion in OCCASIONS for pattern in PATTERNS}


def test_captions_do_not_tell_the_pattern(corpus):
    words = {word.strip(",.?:-") for row in read(corpus) if row["text"] for word in row["text"].split()}
    assert words.isdisjoint(PATTERNS)


def test_some_inputs_are_missing_and_some_files_broken(corpus):
    rows = read(corpus)
    for column in ("text", "image"):
        assert 0.02 < sum(row[column] is None for row in rows) / len(rows) < 0.09
    conditions = [condition(corpus, row["image"]) for row in rows if row["image"]]
    assert set(conditions) == {"good", "missing", "zero bytes", "no picture", "truncated"}
    assert conditions.count("good") > 0.9 * len(conditions)


def test_pictures_vary_in_format_and_size(corpus):
    names = [row["image"] for row in read(corpus)[:200] if row["image"] and condition(corpus, row["image"]) == "good"]
    opened = [Image.open(corpus.parent / name) for name in names]
    assert {picture.format for picture in opened} == {"PNG", "JPEG", "WEBP"}
    assert len({picture.size for picture in opened}) > 30
    assert all(64 <= side <= 128 for picture in opened for side in picture.size)


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo_corpus(tmp_path / name, rows=40, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first, other = (read(tmp_path / name / "metadata.jsonl") for name in ("a", "c"))
    assert [row["text"] for row in first] != [row["text"] for row in other]


def test_second_writing_touches_nothing(tmp_path):
    write_demo_corpus(tmp_path, rows=40)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_demo_corpus(tmp_path, rows=40)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_interrupted_writing_is_completed(tmp_path):
    write_demo_corpus(tmp_path, rows=40)
    whole = contents(tmp_path)
    kept = next(path for path in sorted((tmp_path / "images").iterdir()) if path.stat().st_size)
    stamp = kept.stat().st_mtime_ns
    lost = sorted((tmp_path / "images").iterdir())[-1]
    lost.unlink()
    (tmp_path / "metadata.jsonl").unlink()
    write_demo_corpus(tmp_path, rows=40)
    assert contents(tmp_path) == whole
    assert kept.stat().st_mtime_ns == stamp


def test_the_label_needs_both_inputs(corpus):
    pictures = DescriptorEncoder(EncoderSpec("image", "builtin/descriptor"))
    texts = HashingEncoder()
    rows = [row for row in read(corpus) if row["text"] and row["image"] and condition(corpus, row["image"]) == "good"]
    labels = [row["label"] for row in rows]
    designs = [row["design"] for row in rows]
    text = texts.encode([texts.prepare(row["text"]) for row in rows])
    image = pictures.encode([pictures.prepare((corpus.parent / row["image"]).read_bytes()) for row in rows])
    text, image = ((view - view.mean(0)) / view.std(0).mean() for view in (text, image))

    def accuracy(features):
        folds = GroupKFold(3)
        guesses = cross_val_predict(RidgeClassifier(300.0), features, labels, groups=designs, cv=folds)
        return np.mean(guesses == np.array(labels))

    alone = max(accuracy(text), accuracy(image))
    assert accuracy(np.hstack([text, image])) > alone + 0.2
