"""Faults to plant into the code, of which each must be found: what the simulation is worth."""

import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.storage.local import LocalStore
from barycenter.infra.storage.remote import S3Store
from barycenter.infra.versions import commit, embedding_files, garbage, lease
from barycenter.infra.versions.embedding_files import Repairs
from barycenter.tasks.fuse.writers import FeatureWriters
from tests.simulation.features import rows_to_write
from tests.simulation.job import features

Edit = tuple[Callable[..., Any], str, str]


@contextmanager
def edited(*edits: Edit) -> Iterator[None]:
    """Exchanges text of functions for the length of the block, wherever they were imported to."""
    with ExitStack() as stack:
        for known in (features, rows_to_write):
            known.cache_clear()  # it was made by the code as it was
            stack.callback(known.cache_clear)
        for function, before, after in edits:
            plain = inspect.unwrap(function)
            source = textwrap.dedent(inspect.getsource(plain))
            assert before in source, f"{plain.__qualname__} no longer holds {before!r}"
            source = source[source.index("def ") :].replace(before, after)
            namespace: dict[str, Any] = {}
            exec(compile(source, plain.__code__.co_filename, "exec"), dict(plain.__globals__), namespace)
            stack.callback(setattr, plain, "__code__", plain.__code__)
            plain.__code__ = namespace[plain.__name__].__code__
        yield


def _settle_all(self: Repairs) -> None:
    """Takes what any run intends for done."""
    for path, note in embedding_files._notes(self._storage).items():
        now = embedding_files._hashes(self._storage, list(note))
        body = {name: [first, content or now.get(name)] for name, (first, content) in note.items()}
        self._storage.write(path, json.dumps(body).encode())


FAULTS: dict[str, tuple[Edit, ...]] = {
    "a commit without a look at its parent": ((commit.commit_manifest, "newest == parent and ", ""),),
    "the pointer before the manifest": (
        (
            commit.commit_manifest,
            "    lease.check()\n",
            "    lease.check()\n    storage.write(POINTER, made.to_json())\n",
        ),
    ),
    "a collection in the wrong order": (
        (
            garbage.collect_garbage,
            "    if garbage.versions:",
            "    storage.remove(garbage.files)\n    if garbage.versions:",
        ),
    ),
    "a lease without terms": ((lease.Lease.check, "newest is None or newest.holder != self._term.holder", "False"),),
    "a lease that is taken at once": ((lease._Watch.has_given_up, "now - self._since >= patience", "True"),),
    "a create that overwrites": (
        (LocalStore._created, "self._disk.link(temporary, target)", "self._disk.replace(temporary, target)"),
        (S3Store._create, ', IfNoneMatch="*"', ""),
    ),
    "a rename without a sync": ((LocalStore.writing, "self._disk.sync(stream)", "pass"),),
    "a create without a sync": ((LocalStore._created, "self._disk.sync(stream)", "pass"),),
    "another run's intention settled": (
        (Repairs.settle, "    if not self._original_hashes:\n        return\n", "    _settle_all(self)\n    return\n"),
    ),
    "intentions believed": ((embedding_files.repairs, "believed | _hashes(", "believed | (lambda *_: {})("),),
    "a collection that fences nobody": ((garbage.collect_garbage, "fence(storage, lease)", "pass"),),
    "a pointer put without a condition": ((S3Store.replace, ", IfMatch=tag", ""),),
    "one page of a listing": ((S3Store._pages, 'if not page.get("IsTruncated"):', "if True:"),),
    "a lost answer taken for a refusal": ((S3Store.create, "tries > 1 and self.read(path) == data", "False"),),
    "a unit dropped with its worker": (
        (Scheduler._lost, "reversed(held if several else held[1:])", "reversed(held if several else [])"),
    ),
    "done shards not looked for": ((embedding_files.done_shards, "return {", "return set() and {"),),
    "a collection that frees numbers": (
        (garbage.collect_garbage, 'storage.write(COLLECTED, json.dumps({"versions": deleted}).encode())', "pass"),
    ),
    "a collection of what readers see": ((garbage.find_garbage, "shown_version(storage), ", ""),),
    "two writers on one path": (
        (
            FeatureWriters.write,
            "        self._file(place, value)",
            "        if any(each != each for each in value) and place in self._open:\n"
            "            self._open[str(id(part))] = self._open.pop(place)\n"
            "        self._file(place, value)",
        ),
    ),
}
"""By name: which text of which function becomes which."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plants one of :data:`FAULTS`."""
    embedding_files.__dict__.setdefault("_settle_all", _settle_all)
    with edited(*FAULTS[name]):
        yield
