"""Anything in, every row accounted for: fuzzed rows by the thousand, and every odd and broken picture of a suite."""

import csv
import io
import json
import random
import shutil
import struct
import zlib
from collections import Counter

import pyarrow as pa
import pytest
from PIL import Image

from barycenter.infra.versions.manifests import read_manifest, verify
from tests.flows.corpora import output, read_features, run_here, write_lines

ROWS = 1_000
WIDTH = 6


def png(color=(200, 30, 30)):
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), color).save(stream, "PNG")
    return stream.getvalue()


def bomb(side=60_000):
    """A PNG of 3.6 gigapixels in a few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


TEXTS = [
    ("a red kite for winter", None),
    ("ein blauer Teller, 新しい", None),
    (3.5, None),
    (True, None),
    ({"a": 1}, None),
    ("long " * 500, None),
    (None, "null"),
    ("", "empty"),
    (" \n\t ", "empty"),
    ("half \ud800 a pair", "wrong_type"),
]
VECTORS = [
    ([0.5] * WIDTH, None),
    ([1] * WIDTH, None),
    (None, "null"),
    ([1.0] * (WIDTH - 1), "wrong_length"),
    ([1.0] * (WIDTH + 1), "wrong_length"),
    ([], "wrong_length"),
    ([1.0] * (WIDTH - 1) + [float("nan")], "not_finite"),
    ([float("inf")] + [1.0] * (WIDTH - 1), "not_finite"),
    ([1.0] * (WIDTH - 1) + [None], "not_numeric"),
]
IMAGES = [
    ("good.png", None),
    ("images/good.png", None),
    (None, "null"),
    ("  ", "empty"),
    ("zero.png", "empty"),
    ("nowhere.png", "file_missing"),
    ("nul\0.png", "file_missing"),
    ("images", "not_a_file"),
    ("../secret.png", "outside_corpus"),
    ("/etc/hostname", "outside_corpus"),
    ("leaving.png", "outside_corpus"),
    ("http://127.0.0.1:9/a.png", "http_not_allowed"),
    ("s3://elsewhere/a.png", "outside_corpus"),
    ("text.png", "not_an_image"),
    ("half.png", "truncated"),
    ("bomb.png", "too_many_pixels"),
    ("drawing.eps", "format_not_allowed"),
]
UNREADABLE = ('{"id": "broken"', "[1, 2]", "nonsense")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed") / "corpus"
    (folder / "images").mkdir(parents=True)
    contents = {
        "good.png": png(),
        "images/good.png": png((30, 30, 200)),
        "../secret.png": png(),
        "zero.png": b"",
        "text.png": b"this is no picture",
        "half.png": png()[:60],
        "bomb.png": bomb(),
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "leaving.png").symlink_to("../secret.png")
    return folder


def fuzzed(rng, number):
    """A row, and what is wrong with each of its inputs; the first is flawless and long."""
    if not number:
        row = {"id": "r0", "text": "one megabyte " * 75_000, "vec": [1.0] * WIDTH, "image": "good.png"}
        return row, dict.fromkeys(("text", "vec", "image"))

    def drawn(kinds):
        good = [kind for kind in kinds if kind[1] is None]
        return rng.choice(good if rng.random() < 0.7 else kinds)

    text, vec, image = drawn(TEXTS), drawn(VECTORS), drawn(IMAGES)
    key = rng.choices([f"r{number}", f"r{rng.randrange(number + 1)}", None, ""], [0.9, 0.06, 0.02, 0.02])[0]
    row = {"id": key, "text": text[0], "vec": vec[0], "image": image[0]}
    return row, {"text": text[1], "vec": vec[1], "image": image[1]}


def test_a_thousand_fuzzed_rows_are_accounted_for_exactly(folder, tmp_path):
    rng = random.Random(5)
    lines, bad, missing = [], Counter(), Counter(text=0, vec=0, image=0)
    written, seen = [], set()
    for number in range(ROWS):
        if number and rng.random() < 0.01:
            lines.append(rng.choice(UNREADABLE))
            bad["unreadable_row"] += 3
            continue
        row, reasons = fuzzed(rng, number)
        lines.append(json.dumps(row))
        bad.update(reason for reason in reasons.values() if reason is not None)
        key = row["id"] or None
        bad["null_key"] += key is None
        bad["duplicate_key"] += key in seen and key is not None
        if key is not None and key not in seen and None in reasons.values():
            written.append(key)
            missing.update(name for name, reason in reasons.items() if reason is not None)
        seen.add(key)
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    report = run_here(job(folder / "rows.jsonl", tmp_path / "out"))
    assert report["rows"]["read"] == ROWS
    assert report["rows"]["bad"] == {reason: count for reason, count in bad.items() if count}
    keys = read_features(job(folder / "rows.jsonl", tmp_path / "out")).column("id").to_pylist()
    assert keys == written
    assert report["rows"]["written"] == len(written)
    assert report["rows"]["rejected"] == ROWS - len(written)
    assert report["rows"]["missing"] == dict(missing)


def job(corpus, out, **inputs):
    return {
        "name": "fuzzed",
        "corpus": {"path": str(corpus), "key": "id", "rows_per_shard": 300},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 4096},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 64},
            "vec": {"kind": "vector", "column": "vec", "batch": 4096},
        },
        "alignment": {"dim": 6},
        "limits": {"max_bad_fraction": 0.9},
        "output": {"path": str(out)},
        "ray": {"workers": 2, "threads_per_worker": 1},
    }


@pytest.mark.shared
def test_every_odd_and_broken_picture_is_embedded_or_rejected_with_a_reason(shared, tmp_path):
    source = shared / "data" / "bad_images"
    with (source / "manifest.tsv").open(newline="") as stream:
        verdicts = {row["file"]: row["pillow_result"] for row in csv.DictReader(stream, delimiter="\t")}
    shutil.copytree(source / "files", tmp_path / "corpus" / "images")
    names = sorted(path.name for path in (source / "files").iterdir())
    rows = [{"id": name, "text": f"a picture called {name}", "image": name} for name in names]
    data = job(write_lines(tmp_path / "corpus" / "rows.jsonl", rows), tmp_path / "out")
    del data["inputs"]["vec"]
    report = run_here(data)
    assert report["rows"]["read"] == report["rows"]["written"] == len(names)
    features = read_features(data)
    assert features.column("id").to_pylist() == names
    assert all(features.column("has_text").to_pylist())
    seen = dict(zip(names, features.column("has_image").to_pylist(), strict=True))
    manifest = read_manifest(output(data))
    rejects = pa.concat_tables(output(data).read_table(path) for path in manifest.rejects).to_pylist()
    reasons = {row["key"]: row["reason"] for row in rejects}
    assert reasons.keys() == {name for name, there in seen.items() if not there}
    assert all(row["input"] == "image" and row["reason"] and row["source"] for row in rejects)
    opened = [name for name, verdict in verdicts.items() if verdict == "ok"]
    excluded = ("format_not_allowed", "too_many_pixels", "too_large")
    lost = [name for name in opened if name in reasons and reasons[name] not in excluded]
    assert len(opened) > 120
    assert len(lost) <= 0.05 * len(opened), {name: reasons[name] for name in lost}
    assert verify(output(data), manifest) == []
