"""Which identities each key of a job file belongs to; a key that is in no line fails the tests until it is placed."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from barycenter.infra.job.models import Job
from tests.tasks.identity_corpus import job

AFTER = frozenset({"version", "head", "report"})
FIT = frozenset({"moments", "settings"}) | AFTER
TEXT, IMAGE, VEC = (frozenset({name}) | FIT for name in ("text", "image", "vec"))
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Line:
    """A key, another value of it and what that changes.

    Attributes:
        key: As :func:`keys` gives it, ``*`` for any input.
        value: The other value; ``{folder}`` in it is the corpus's.
        changes: The identities that change with it, no more and no less; the job hash is another matter.
        name: The input that it is changed of.
        first: What the job says instead, before the change: {dotted path: value}.
        also: What must change along with it.
        runs: Whether it can be run here.
    """

    key: str
    value: Any
    changes: frozenset[str] = NOTHING
    name: str = "image"
    first: dict[str, Any] = field(default_factory=dict)
    also: dict[str, Any] = field(default_factory=dict)
    runs: bool = True

    def __str__(self) -> str:
        return f"{self.key}={self.value!r:.30}"

    def before(self, folder: Path) -> dict[str, Any]:
        """The job that the change is made in."""
        return _with(job(folder), self.first, folder)

    def after(self, folder: Path) -> dict[str, Any]:
        """The changed job."""
        changed = {self.key.replace("*", self.name): self.value} | self.also
        return _with(self.before(folder), changed, folder)


OWN = {"inputs.vec": {"kind": "vector", "column": "own", "batch": 16, "corpus": {"path": "{folder}/own.parquet"}}}
TORCHVISION = {
    "inputs.image.encoder": "torchvision/squeezenet1_1",
    "inputs.image.weights": "{folder}/first.safetensors",
}
LINES = [
    Line("name", "other"),
    Line("seed", 7, frozenset({"head", "report"})),
    Line("seed", 7, frozenset({"settings", "head", "report"}), first={"alignment.method": "kernel-cca"}),
    Line("corpus.path", "{folder}/moved"),
    Line("corpus.path", "{folder}/grown", AFTER),
    Line("corpus.path", "{folder}/mixed", TEXT | IMAGE | VEC, first={"corpus.key": "number"}),
    Line("corpus.key", "isbn", TEXT | IMAGE | VEC),
    Line("corpus.on_duplicate", "last", AFTER),
    Line("corpus.on_duplicate", "fail", AFTER),
    Line("corpus.keep", ["label", "other", "side", "group", "price"], AFTER),
    Line("corpus.rows_per_shard", 6, AFTER),
    Line("inputs.*.kind", "text", IMAGE, also={
        "inputs.image.encoder": "{folder}/bert", "inputs.image.preprocessing": None, "inputs.image.batch": 512,
    }),
    Line("inputs.*.column", "title", TEXT, name="text"),
    Line("inputs.*.column", ["title", "text"], TEXT, name="text"),
    Line("inputs.*.column", "back", VEC, name="vec", also={"inputs.vec.weights_column": "shares"}),
    Line("inputs.*.corpus.path", "{folder}/other.parquet", AFTER, name="vec", first=OWN),
    Line("inputs.*.corpus.key", "ref", AFTER, name="vec", first=OWN),
    Line("inputs.*.weights_column", "shares", VEC, name="vec"),
    Line("inputs.*.long_text", "window-mean", TEXT, name="text"),
    Line("inputs.*.encoder", "builtin/descriptor", IMAGE, also={"inputs.image.preprocessing": None}),
    Line("inputs.*.weights", "{folder}/second.safetensors", IMAGE, first=TORCHVISION),
    Line("inputs.*.trust_remote_code", True),
    Line("inputs.*.preprocessing.resize", 48, IMAGE),
    Line("inputs.*.preprocessing.crop", 24, IMAGE, first=TORCHVISION),
    Line("inputs.*.preprocessing.mean", [0.4, 0.5, 0.5], IMAGE),
    Line("inputs.*.preprocessing.std", [0.4, 0.5, 0.5], IMAGE),
    Line("inputs.*.batch", 4),
    Line("inputs.*.batch", "auto"),
    Line("inputs.*.dtype", "bfloat16", IMAGE),
    Line("inputs.*.reproducible", False, IMAGE),
    Line("alignment.method", "pca", frozenset({"settings"}), first={"alignment.dim": 3}),
    Line("alignment.dim", 5, frozenset({"settings"})),
    Line("alignment.regularization", 0.5, frozenset({"settings"})),
    Line("alignment.folds", 3, frozenset({"moments", "settings", "report"})),
    Line("alignment.from", "{folder}/lender"),
    Line("average.method", "spherical", frozenset({"settings"})),
    Line("average.weights", {"text": 2.0}, frozenset({"settings"}), first={"average.method": "weighted"}),
    Line("average.weights", {"text": 1.0}),
    Line("output.path", "{folder}/elsewhere", runs=False),
    Line("output.partition_by", ["label"], AFTER),
    Line("output.dtype", "float16", AFTER),
    Line("output.keep_aligned", True, AFTER),
    Line("output.reuse", ["/nothing/here"]),
    Line("output.promote", "manual"),
    Line("output.busy", "fail"),
    Line("on_bad_input", "drop", AFTER),
    Line("limits.deadline", "6h"),
    Line("limits.max_bad_fraction", 0.95),
    Line("limits.max_pixels", 5_000, IMAGE),
    Line("limits.formats", ["PNG"], IMAGE),
    Line("limits.outside_corpus", True, IMAGE),
    Line("limits.http", True, IMAGE),
    Line("limits.http_concurrency", 2),
    Line("limits.http_timeout", 5.0),
    Line("limits.max_picture_bytes", 10_000, IMAGE),
    Line("limits.join_memory_mb", 512, first=OWN),
    Line("storage.endpoint_url", "http://127.0.0.1:1"),
    Line("storage.credentials_block", "secret/there-is-none"),
    Line("train.target", "other", frozenset({"moments", "settings", "head", "report"})),
    Line("train.task", "classification", frozenset({"settings", "head", "report"})),
    Line("train.head", "mlp", frozenset({"head", "report"})),
    Line("train.split", "side", frozenset({"moments", "settings", "head", "report"})),
    Line("train.group_by", "group", frozenset({"moments", "settings", "head", "report"})),
    Line("ray.address", "auto"),
    Line("ray.workers", 2),
    Line("ray.threads_per_worker", 2),
    Line("ray.gpus_per_worker", 0.0),
    Line("ray.start_timeout", 60.0),
    Line("deployment.schedule", "0 2 * * *", runs=False),
    Line("deployment.timezone", "Europe/Berlin", runs=False),
    Line("deployment.tags", ["nightly"], runs=False),
    Line("deployment.work_pool", "machines", runs=False),
    Line("deployment.job_variables", {"env": {"A": "1"}}, runs=False),
    Line("deployment.parameters.recheck", True, runs=False),
    Line("deployment.parameters.retry_bad", True, runs=False),
    Line("deployment.parameters.refit", True, runs=False),
    Line("deployment.parameters.adopt", True, runs=False),
    Line("deployment.parameters.as_of", "2024-01-31", runs=False),
]  # fmt: skip


def keys(model: type[BaseModel] = Job, above: str = "") -> Iterator[str]:
    """The path of every value that a job file can hold, ``*`` for the name of an input."""
    for name, about in model.model_fields.items():
        path = f"{above}{about.alias or name}"
        named, inner = _sections(about.annotation)
        if inner is None:
            yield path
        else:
            yield from keys(inner, f"{path}.*." if named else f"{path}.")


def _sections(annotation: Any) -> tuple[bool, type[BaseModel] | None]:
    """(whether in a dictionary, the section that a field holds), None for a plain value."""
    if get_origin(annotation) is dict:
        return True, _sections(get_args(annotation)[1])[1]
    if get_origin(annotation) in (Union, UnionType):
        found = [inner for part in get_args(annotation) if (inner := _sections(part)[1]) is not None]
        return False, found[0] if found else None
    inside = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return False, inside


def _with(data: dict[str, Any], changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = copy.deepcopy(data)
    for path, value in changes.items():
        *sections, last = path.split(".")
        node = data
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = _placed(value, folder)
    return data


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _placed(inner, folder) for key, inner in value.items()}
    return value.replace("{folder}", str(folder)) if isinstance(value, str) else copy.deepcopy(value)
