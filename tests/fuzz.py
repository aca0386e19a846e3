"""Fuzzed tables from a corpus to its feature files and back through their readers, without Ray.

    python -m tests.fuzz N=100000 SEED=1

Every type of ``tests.fuzz_values`` is a key, a kept column, a partition column and a target in as many tables. Of
each table: rows written and rejected are those read, keys and values come back equal, what is refused is named.
"""

import datetime as dt
import math
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion.alignment import Identity
from fusion.dataset import FusedDataset, FusedRows
from fusion.errors import BarycenterError, JobError, Reason, RunError
from infra.job import Job
from infra.storage import Storage
from tasks import fuse
from tasks.align import Fitted
from tasks.alignment_files import save_alignment
from tasks.embed import embed_setting
from tasks.encoding import EmbedWorker, ShardJob
from tasks.execution import Execution
from tasks.labelled import read_file
from tasks.plan import prepare
from tasks.run import Run
from tests.fuzz_values import KINDS, columns, invalid_text, special

ROLES = ("key", "kept", "partition", "target")
SPECIALS = ("nan", "infinite", "null", "empty text", "escaped", "folded", "invalid utf-8", "nested")
INVALID = "WRONG_TYPE" in Reason.__members__
"""Whether texts that are no UTF-8 are rejects of their column."""

_EACH = 4

_ALIGNMENT = Identity().fit({"vec": np.random.default_rng(0).normal(size=(20, 2))})


@dataclass
class Tally:
    """What was tried: tables by role and type, tables by special value, and how they ended."""

    roles: Counter = field(default_factory=Counter)
    specials: Counter = field(default_factory=Counter)
    ends: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    rows: Counter = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """A table for people."""
        lines = [f"{role:<10} {kind:<22} {self.roles[role, kind]:>6} tables" for role in ROLES for kind in KINDS]
        lines += [f"{special:<33} {self.specials[special]:>6} tables" for special in SPECIALS]
        lines += [f"{end:<33} {count:>6} tables" for end, count in sorted(self.ends.items())]
        return lines + [f"rows {name:<28} {count:>6}" for name, count in sorted(self.rows.items())]


@dataclass
class Case:
    """A table, and which of its columns are what."""

    table: pa.Table
    kinds: dict[str, str]
    key: str | None
    partition: list[str]
    target: str | None
    bad: dict[str, list[int]]


@st.composite
def cases(draw: Any, role: str, kind: str) -> Case:
    """A table in which a column of a kind has a role."""
    rows = draw(st.integers(1, 7))
    kinds = {"k": "string", "p": "string", "c": "string"}
    kinds |= {name: draw(st.sampled_from(list(KINDS))) for name in draw(st.sampled_from([[], ["x"], ["x", "y é"]]))}
    kinds[{"key": "k", "partition": "p"}.get(role, "c")] = kind
    table = {name: draw(columns(of, rows)) for name, of in kinds.items()}
    bad: dict[str, list[int]] = {}
    if role != "partition":
        of, array = draw(special(rows))
        place = "x" if pa.types.is_nested(array.type) else "p"
        kinds[place], table[place] = of, array
    if INVALID and draw(st.integers(0, 9)) == 0:
        table["u"], bad["u"] = draw(invalid_text(rows))
        kinds["u"] = "string"
    vector = st.just([1.0, 2.0]) | st.sampled_from([None, [], [1.0], [math.nan, 1.0], [math.inf, 1.0], [None, 1.0]])
    table["vec"] = pa.array([[1.0, 2.0], *(draw(vector) for _ in range(rows - 1))], pa.list_(pa.float32()))
    partition = ["p"] if role == "partition" or draw(st.booleans()) else []
    key = "k" if role == "key" or draw(st.integers(0, 3)) else None
    return Case(pa.table(table), kinds, key, partition, "c" if role == "target" else None, bad)


def job_of(case: Case, folder: Path) -> Job:
    """The job of a case, its table written."""
    pq.write_table(case.table, folder / "rows.parquet", row_group_size=3)
    values: dict[str, Any] = {
        "corpus": {
            "path": str(folder / "rows.parquet"),
            "key": case.key,
            "keep": list(case.kinds),
            "rows_per_shard": 4,
        },
        "inputs": {"vec": {"kind": "vector", "column": "vec"}},
        "alignment": {"method": "none"},
        "average": {"method": "mean"},
        "output": {"path": str(folder / "out"), "partition_by": case.partition},
        "limits": {"max_bad_fraction": 1.0},
    }
    if case.target is not None:
        values["train"] = {"target": case.target}
    return Job.model_validate(values)


def run_stages(job: Job) -> tuple[Run, dict[str, Any]]:
    """Embeds and fuses in this process; the manifest."""
    run = prepare(job)
    execution = Execution(batch=64, threads=1, dtype="float32", device="cpu")
    worker = EmbedWorker(embed_setting(run, "vec", execution))
    with worker.pipeline:
        for shard in run.shards:
            worker.run(ShardJob(shard, 64))
    fitted = Fitted(_ALIGNMENT, save_alignment(run.storage, _ALIGNMENT), {"average": "mean", "weights": None})
    with (
        mock.patch.object(fuse, "dispatch", _here),
        mock.patch.object(fuse, "StageProgress"),
        mock.patch.object(fuse, "block_workers"),
        mock.patch.object(fuse, "dataset_committed"),
    ):
        manifest, _ = fuse.fuse_features.fn(run, None, fitted, "mean", None)
    return run, manifest


def _here(units: Any, *, worker: Any, args: Any, on_done: Any, **_: Any) -> list[Any]:
    """Dispatches to a worker in this process."""
    made = worker(*args)
    for unit in units:
        on_done(unit, made.run(unit.payload))
    return []


def check(case: Case, tally: Tally, index: int) -> None:
    """One case from corpus to readers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = _outcome(case, folder)
        if isinstance(outcome, Exception):
            check_refusal(case, folder, outcome, tally)
            return
        run, manifest = outcome
        counts = manifest["rows"]
        assert counts["read"] == case.table.num_rows == counts["written"] + counts["rejected"]
        tally.ends["written"] += 1
        tally.rows.update({"read": counts["read"], "written": counts["written"], "rejected": counts["rejected"]})
        expected = expected_rows(case, run)
        check_fused(case, folder / "out", expected, manifest, run.storage)
        check_pandas(case, folder / "out" / "features" / manifest["version"], expected)
        if index % 10 == 0:
            check_polars_duckdb(case, folder / "out" / "features" / manifest["version"], expected)


def _outcome(case: Case, folder: Path) -> tuple[Run, dict[str, Any]] | Exception:
    try:
        return run_stages(job_of(case, folder))
    except (BarycenterError, ValidationError) as error:
        return error


def check_refusal(case: Case, folder: Path, error: Exception, tally: Tally) -> None:
    """What is refused is refused by one of our errors, which names a column; nothing is committed."""
    assert isinstance(error, JobError | RunError), error
    assert not Storage(str(folder / "out")).exists("manifest.json")
    if "no row has a usable input" in str(error):
        assert case.key is not None
        keys = case.table.column(case.key).to_pylist()
        usable = [key for key, good in zip(keys, good_rows(case), strict=True) if good and _names_a_row(case, key)]
        assert not [key for key in usable if keys.count(key) == 1], error
        tally.ends["without a row"] += 1
        return
    tally.ends["refused"] += 1
    tally.refused[type(error).__name__, str(error).replace(str(folder), "")[:60]] += 1
    assert any(repr(column) in str(error) or f"`{column}`" in str(error) for column in case.kinds), error


def _names_a_row(case: Case, key: Any) -> bool:
    """Whether a value is a key: not empty, not NaN, and text if it is bytes of any length."""
    if key in (None, "", b"") or (isinstance(key, float) and math.isnan(key)):
        return False
    if isinstance(key, bytes) and not pa.types.is_fixed_size_binary(case.table.schema.field(case.key).type):
        return key.decode("utf-8", "replace").encode() == key
    return True


def expected_rows(case: Case, run: Run) -> dict[str, int]:
    """{key: row of the table} of the rows that are to be written, by the keys of the corpus."""
    keys: list[str | None] = []
    for shard in run.shards:
        keys += run.corpus.keys(shard, run.corpus.read(shard, []))
    if case.key is not None:
        check_keys(case.table.column(case.key).to_pylist(), keys)
    expected: dict[str, int] = {}
    seen: set[str] = set()
    for row, (key, good) in enumerate(zip(keys, good_rows(case), strict=True)):
        if key is not None and key not in seen and good:
            expected[key] = row
        seen |= {key} - {None}
    return expected


def good_rows(case: Case) -> list[bool]:
    """Which rows have a usable vector."""
    return [
        vector is not None and len(vector) == 2 and all(x is not None and math.isfinite(x) for x in vector)
        for vector in case.table.column("vec").to_pylist()
    ]


def check_keys(values: list[Any], keys: list[str | None]) -> None:
    """Equal values have equal keys, other values others."""
    texts: dict[Any, str | None] = {}
    for value, key in zip(values, keys, strict=True):
        if value is None:
            assert key is None
        assert texts.setdefault(canonical(value), key) == key
    known = [key for key in texts.values() if key is not None]
    assert len(set(known)) == len(known), texts


def check_fused(case: Case, out: Path, expected: dict[str, int], manifest: dict[str, Any], storage: Storage) -> None:
    """Our own readers: exact values of every column, in batches and as Arrow."""
    table = FusedRows(out)._source.arrow().to_table()
    keys = table.column(manifest["key"]).to_pylist()
    assert sorted(keys) == sorted(expected)
    for name in case.kinds:
        same(case, name, table.column(name).to_pylist() if name != case.key else None, keys, expected)
    batches = list(FusedDataset(out, batch_size=3))
    assert [key for batch in batches for key in batch["key"]] == keys
    for name in case.kinds:
        if name != case.key and batches:
            values = [value for batch in batches for value in _values(batch[name])]
            same(case, name, values, keys, expected, missing=True)
    if case.target is not None:
        parts = [read_file(storage, manifest, file, [manifest["key"], case.target]) for file in manifest["files"]]
        target = pa.concat_tables(parts)
        found = target.column(manifest["key"]).to_pylist()
        same(case, case.target, target.column(case.target).to_pylist(), found, expected)


def check_pandas(case: Case, features: Path, expected: dict[str, int]) -> None:
    """README's line; folders of other types than text are texts or numbers to it."""
    if not expected:
        return
    table = pd.read_parquet(features)
    key = table.columns[0] if case.key is None else case.key
    for name in case.kinds:
        if name != case.key and name in table:
            values = table[name].tolist()
            same(case, name, values, table[key].tolist(), expected, missing=True, folder=name in case.partition)


def check_polars_duckdb(case: Case, features: Path, expected: dict[str, int]) -> None:
    """README's lines, as Arrow: columns that stand in the files."""
    import duckdb
    import polars

    if not expected:
        return
    key = "key" if case.key is None else case.key
    tables = {"polars": polars.read_parquet(f"{features}/**/*.parquet").to_arrow()}
    tables["duckdb"] = duckdb.read_parquet(f"{features}/**/*.parquet", hive_partitioning=False).to_arrow_table()
    for library, table in tables.items():
        for name in case.kinds:
            if name != case.key and name in table.column_names:
                column = table.column(name)
                if library == "duckdb" and pa.types.is_duration(case.table.column(name).type):
                    column = column.cast(case.table.column(name).type)
                same(case, name, column.to_pylist(), table.column(key).to_pylist(), expected, missing=True)


def same(
    case: Case,
    name: str,
    values: list[Any] | None,
    keys: list[str],
    expected: dict[str, int],
    *,
    missing: bool = False,
    folder: bool = False,
) -> None:
    """Compares a column that was read with the corpus's.

    Args:
        case: The case.
        name: The column.
        values: As read; None compares nothing.
        keys: Of the rows read.
        expected: {key: row of the table}.
        missing: Null and NaN are the same to the reader, and numbers with nulls are floats.
        folder: The values are those of folder names.
    """
    if values is None:
        return
    source = case.table.column(name)
    if name in case.bad:
        source = source.cast(pa.binary())
    wanted = source.to_pylist()
    for key, value in zip(keys, values, strict=True):
        row = expected[key]
        if row in case.bad.get(name, []):
            assert canonical(value, missing=True) is None, (name, key, value)
            continue
        want = wanted[row].decode() if isinstance(wanted[row], bytes) and name in case.bad else wanted[row]
        if folder and not isinstance(want, str) and want is not None:
            assert _folder_value(value) == _folder_value(want), (name, key, value, want)
        elif folder and isinstance(want, str) and isinstance(value, int):
            assert str(value) == want, (name, key, value, want)
        elif missing and isinstance(want, int) and isinstance(value, float):
            assert float(want) == value, (name, key, value, want)
        else:
            assert canonical(value, missing) == canonical(want, missing), (name, key, value, want)


def _folder_value(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if str(value).lower() in ("nan", "true", "false"):
        return None if str(value) == "nan" else str(value).lower()
    try:
        return str(float(value) + 0.0)  # one folder for both zeros
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _values(column: Any) -> list[Any]:
    return column.tolist() if hasattr(column, "tolist") else list(column)


def canonical(value: Any, missing: bool = False) -> Any:
    """A value that can be compared and hashed: NaN equals itself, times are numbers, sequences tuples."""
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return (None if missing else "nan") if math.isnan(value) else float(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, Decimal):
        return value.normalize() if value else Decimal(0)
    if isinstance(value, pd.Timestamp | dt.datetime):
        stamp = pd.Timestamp(value)
        return stamp.tz_convert("UTC").tz_localize(None).isoformat() if stamp.tz else stamp.isoformat()
    if isinstance(value, pd.Timedelta | dt.timedelta):
        return ("duration", pd.Timedelta(value).isoformat())
    if isinstance(value, dict):
        return tuple(sorted((name, canonical(part, missing)) for name, part in value.items()))
    if isinstance(value, list | tuple | np.ndarray):
        parts = [canonical(part, missing) for part in value]
        if missing and parts and all(part is None for part in parts):
            return None
        return tuple(parts)
    return value


def specials_of(case: Case) -> set[str]:
    """Which special values a case holds."""
    found = {"invalid utf-8"} if any(case.bad.values()) else set()
    for name, kind in case.kinds.items():
        if name in case.bad:
            continue
        values = case.table.column(name).to_pylist()
        texts = {value for value in values if isinstance(value, str)}
        floats = [value for value in values if isinstance(value, float)]
        found |= {"null"} if None in values else set()
        found |= {"nan"} if any(map(math.isnan, floats)) else set()
        found |= {"infinite"} if any(map(math.isinf, floats)) else set()
        found |= {"empty text"} if "" in texts else set()
        found |= {"escaped"} if any(not text.isalnum() for text in texts) and name in case.partition else set()
        found |= {"folded"} if len({text.casefold() for text in texts}) < len(texts) else set()
        found |= {"nested"} if pa.types.is_nested(KINDS[kind][0]) else set()
    return found


def pairs(examples: int) -> list[tuple[str, str]]:
    """Roles and kinds to try: all of them, or with few examples each kind in one role."""
    if examples >= _EACH * len(ROLES) * len(KINDS):
        return [(role, kind) for role in ROLES for kind in KINDS]
    return [(ROLES[number % len(ROLES)], kind) for number, kind in enumerate(KINDS)]


def fuzz(examples: int, seed_value: int = 0) -> Tally:
    """Tries so many tables or somewhat more, the same number of each pair of role and kind."""
    tally = Tally()
    tried = pairs(examples)
    for role, kind in tried:
        _fuzz(role, kind, -(-examples // len(tried)), seed_value, tally)
    return tally


def _fuzz(role: str, kind: str, examples: int, seed_value: int, tally: Tally) -> None:
    @seed(seed_value)
    @settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(case=cases(role, kind))
    def one(case: Case) -> None:
        tally.roles[role, kind] += 1
        tally.specials.update(specials_of(case))
        check(case, tally, sum(tally.ends.values()))

    one()


def main() -> None:
    """Prints the tally."""
    given_values = dict(argument.split("=", 1) for argument in sys.argv[1:])
    tally = fuzz(int(given_values.get("N", 10_000)), int(given_values.get("SEED", 0)))
    print("\n".join(tally.lines()))


if __name__ == "__main__":
    main()
