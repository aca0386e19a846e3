"""A run whose rows can be shown."""

import pytest
from PIL import Image

from barycenter.infra.job.models import Job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import write_lines


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Sixty rows in two shards: a text, a picture (some broken), two classes, pairs of near-copies."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "images").mkdir()
    rows = []
    for number in range(60):
        picture = Image.new("RGBA", (400, 200), (4 * number, 0, 0, 255))
        picture.save(folder / "images" / f"{number}.png")
        rows.append({"id": f"k{number}", "text": f"row {number}", "image": f"images/{number}.png", "label": number % 2})
    (folder / "images" / "7.png").write_bytes(b"\x89PNG\r\n broken")
    job = {
        "name": "shown",
        "corpus": {"path": str(write_lines(folder / "m.jsonl", rows)), "key": "id", "rows_per_shard": 40},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"},
        },
        "output": {"path": str(folder / "out")},
        "limits": {"max_pixels": 100_000},
    }
    return prepare(Job.model_validate(job))
