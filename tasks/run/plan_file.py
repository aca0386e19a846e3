"""plan.json: what was found by trying, and on what; fixed before the first shard.

- ``engine``: what runs the models; chosen once, for every machine.
- ``machines``: by kind of machine, the ``inputs`` (batch, threads and fast paths there) and the ``libraries``.
- ``versions``: by encoder id, under which versions of its libraries and on which kinds of machine its vectors were
  made, or were found to be the same.
- ``adopted``: by input and encoder id, how often ``--adopt`` gave it a new id.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from barycenter.fusion.encoders import Description
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import decoded
from barycenter.infra.storage.storage import MissingFileError

PLAN = "plan.json"
ENGINES = ("torch",)
"""What can run a model, the first by default; each is a package of that name."""

_ATTEMPTS = 16

Plan = dict[str, Any]


def read_plan(storage: Storage) -> Plan:
    """The content of an output's plan.json, empty where there is none."""
    return _decoded(storage, _content(storage))


def update_plan(storage: Storage, change: Callable[[Plan], None]) -> Plan:
    """Changes plan.json in place; made again on what another run wrote meanwhile.

    Returns:
        What is there now.
    """
    for _ in range(_ATTEMPTS):
        before = _content(storage)
        plan = _decoded(storage, before)
        change(plan)
        data = json.dumps(plan, indent=1, sort_keys=True).encode()
        if data == before:
            return plan
        if storage.create(PLAN, data) if before is None else storage.replace(PLAN, data, before):
            return plan
    raise RunError(f"{storage.uri(PLAN)}: other processes write it all the time; run again")


def engine_of(storage: Storage) -> str | None:
    """The engine that an output's vectors are made with; None where none is chosen yet."""
    plan = read_plan(storage)
    engine = plan.get("engine", ENGINES[0] if plan else None)
    return None if engine is None else str(engine)


def resolve_engine(storage: Storage, borrowed: Storage | None = None, reused: Sequence[Storage] = ()) -> str:
    """The engine of an output: its own, else that of the output it borrows from, else the default one.

    Args:
        storage: The output.
        borrowed: The output of ``alignment.from``.
        reused: Those of ``output.reuse``; of vectors made with another engine nothing can be taken over.

    Raises:
        JobError: It is not installed here, or the two outputs have different ones.
    """
    own, theirs = engine_of(storage), engine_of(borrowed) if borrowed is not None else None
    if own is not None and theirs is not None and own != theirs:
        problem = f"is made with the engine {theirs}, this output with {own}; take another output.path"
        raise JobError("alignment.from", problem)
    of_reused = next(((engine, other) for other in reused if (engine := engine_of(other)) is not None), None)
    engine = own or theirs or (of_reused[0] if of_reused else ENGINES[0])
    if engine not in ENGINES or find_spec(engine) is None:
        key, place = "output.path", storage
        if own is None and theirs is not None and borrowed is not None:
            key, place = "alignment.from", borrowed
        elif own is None and of_reused is not None:
            key, place = "output.reuse", of_reused[1]
        raise JobError(
            key, f"{place.uri(PLAN)} says that the engine is {engine}, which is not installed here; install it, "
            "run where it is, or take another output.path",
        )  # fmt: skip
    return engine


def fix_engine(storage: Storage, engine: str) -> None:
    """Writes the engine to plan.json, unless one is there.

    Raises:
        RunError: Another run has chosen another one meanwhile.
    """
    found = update_plan(storage, lambda plan: plan.setdefault("engine", engine))["engine"]
    if found != engine:
        raise RunError(f"{storage.uri(PLAN)}: another run chose the engine {found} meanwhile; run again")


def times_adopted(storage: Storage, name: str, encoder_id: str) -> int:
    """How often an input's encoder was given a new id by ``--adopt``."""
    return int(read_plan(storage).get("adopted", {}).get(name, {}).get(encoder_id, 0))


def adopt_once_more(storage: Storage, name: str, encoder_id: str) -> int:
    """Notes that an input's encoder gets a new id; how often it now has."""

    def adopt(plan: Plan) -> None:
        adopted = plan.setdefault("adopted", {}).setdefault(name, {})
        adopted[encoder_id] = adopted.get(encoder_id, 0) + 1

    return int(update_plan(storage, adopt)["adopted"][name][encoder_id])


def as_adopted(described: Description, times: int) -> Description:
    """The encoder under the id that it has since ``--adopt`` took the vectors of other versions."""
    if not times:
        return described
    fingerprint = {key: value for key, value in described.fingerprint.items() if key not in ("dim", "implementation")}
    return Description.of(described.dim, fingerprint | {"adopted": times})


def _content(storage: Storage) -> bytes | None:
    try:
        return storage.read(PLAN) if storage.exists(PLAN) else None
    except MissingFileError:
        return None


def _decoded(storage: Storage, content: bytes | None) -> Plan:
    plan: Plan = decoded(storage, PLAN, content) if content is not None else {}
    return plan
