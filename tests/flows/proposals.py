"""Corpora as people have them, and what `barycenter init` writes for them."""

import csv
import io
import re

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.job.json_schema import job_schema
from barycenter.infra.job.loader import load_job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import WORDS

ROWS = 40
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))
PROPOSED = re.compile(r"^( *)#(\w+: .*)$")


def picture(row):
    noise = np.random.default_rng(row).integers(-25, 25, (12, 12, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(COLORS[row % 3] + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def caption(row):
    return " ".join([*WORDS[4 * (row % 3) : 4 * (row % 3) + 2], *np.random.default_rng(row).choice(WORDS, 3)])


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_table(path, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def initializer(folder, monkeypatch):
    """Calls the command in a folder of its own, without a hub's cache; gives what came of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "no-cache"))

    def call(*arguments, code=0):
        result = CliRunner().invoke(app, ["init", *map(str, arguments)])
        assert result.exit_code == code, (result.exit_code, result.output)
        return result

    return call


def uncommented(text, number=None):
    """A job file with one of its proposals, or all of them, taken."""
    lines = text.splitlines()
    places = [place for place, line in enumerate(lines) if PROPOSED.match(line)]
    for place in places if number is None else places[number : number + 1]:
        lines[place] = PROPOSED.sub(r"\1\2", lines[place])
    return "\n".join(lines) + "\n", len(places)


def checked(path):
    """The job of a file, prepared; each of its proposals, and all of them together, are valid too."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=barycenter.schema.json\n")
    other = path.with_name("other.yaml")
    changed = [uncommented(text, number)[0] for number in range(uncommented(text)[1])]
    for variant in [text, *changed, uncommented(text)[0]]:
        other.write_text(variant, encoding="utf-8")
        job = load_job(other)
        jsonschema.validate(yaml.safe_load(variant), job_schema(), jsonschema.Draft202012Validator)
    prepare(job)
    other.unlink()
    job = load_job(path)
    prepare(job)
    return job


def summary(job):
    """What a job file says of the columns."""
    inputs = {name: (part.kind, part.column) for name, part in job.inputs.items()}
    train = None if job.train is None else (job.train.target, job.train.split)
    return job.corpus.key, inputs, train
