"""A Prefect server's work pools, and a folder of job files to deploy on it."""

import json
from functools import cache
from importlib.resources import files
from secrets import token_hex
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines


@cache
def templates() -> dict[str, Any]:
    """The base job template of each type of work pool, as Prefect ships them."""
    path = files("prefect.server.api").joinpath("collections_data/views/aggregate-worker-metadata.json")
    types = [each for library in json.loads(path.read_text()).values() for each in library.items()]
    return {kind: about["default_base_job_configuration"] for kind, about in types}


@pytest.fixture
def client():
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def pool(client):
    """Makes a work pool of a type, with that type's own base job template; returns its name."""

    def make(kind="process"):
        name = f"{kind}-{token_hex(4)}"
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=templates()[kind]))
        return name

    return make


@pytest.fixture
def folder(tmp_path):
    """A folder of job files; ``write(file, **sections)`` writes one, whose job has a name of this test's own."""
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(40))
    ours = token_hex(4)
    (tmp_path / "jobs").mkdir()

    class Folder:
        path = tmp_path / "jobs"

        @staticmethod
        def name(file):
            return f"{file}-{ours}"

        def write(self, file, **sections):
            job = text_and_vector_job(corpus, tmp_path / f"out-{file}", self.name(file), ray={"address": "none"})
            job["inputs"] = {"vec": job["inputs"]["vec"], "text": job["inputs"]["text"]}
            return write_job(self.path / f"{file}.yaml", job | sections)

    return Folder()
