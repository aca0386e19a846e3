"""One case from its files to every reader, and many cases."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings
from pydantic import ValidationError

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import BarycenterError, JobError, RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.run.context import Run
from tests.fuzz.case import Case
from tests.fuzz.oracle import Expected, expected, rows_refused
from tests.fuzz.readers import check_datasets, check_duckdb, check_fused, check_pandas, check_polars
from tests.fuzz.stages import job_of, narrow_texts, run_stages
from tests.fuzz.tables import FAMILIES, ROLES, cases
from tests.fuzz.tally import Tally, specials_of

_SHM = Path("/dev/shm")
_EVERY = {"polars": 2, "duckdb": 2, "datasets": 20}


def pairs(examples: int) -> list[tuple[str, str, str]]:
    """Roles, families and kinds to try: all of them, or with few examples each kind in one role."""
    kinds = [(family, kind) for family, names in FAMILIES.items() for kind in names]
    if examples >= 2 * len(ROLES) * len(kinds):
        return [(role, *kind) for role in ROLES for kind in kinds]
    return [(ROLES[number % len(ROLES)], *kind) for number, kind in enumerate(kinds)]


def fuzz(examples: int, seed_value: int = 0, workers: int = 1) -> Tally:
    """Tries so many tables or somewhat more, the same number of each pair of role and kind."""
    tried = pairs(examples)
    each = -(-examples // len(tried))
    tally = Tally()
    if workers == 1:
        for pair in tried:
            tally.add(fuzz_pair(*pair, each, seed_value))
        return tally
    with ProcessPoolExecutor(workers) as pool:
        for part in [pool.submit(fuzz_pair, *pair, each, seed_value) for pair in tried]:
            tally.add(part.result())
    return tally


def fuzz_pair(role: str, family: str, kind: str, examples: int, seed_value: int) -> Tally:
    """Tries some tables of one pair."""
    tally = Tally()

    @seed(seed_value)
    @settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], print_blob=False,
    )  # fmt: skip
    @given(case=cases(role, family, kind))
    def one(case: Case) -> None:
        tally.roles[role, kind] += 1
        tally.forms[case.form] += 1
        tally.specials.update(specials_of(case))
        with _quick(), tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None) as folder:
            check(case, tally, Path(folder))

    one()
    return tally


@contextmanager
def _quick() -> Iterator[None]:
    """Files need not outlast a power cut, and texts have narrow vectors."""
    with mock.patch("os.fsync"), narrow_texts():
        yield


def check(case: Case, tally: Tally, folder: Path) -> None:
    """One case from its files to every reader."""
    outcome = _outcome(case, folder)
    if isinstance(outcome, Exception):
        check_refusal(case, folder, outcome, tally)
        return
    run, manifest = outcome
    counts = manifest.rows
    assert counts["read"] == case.rows == counts["written"] + counts["rejected"]
    tally.ends["written"] += 1
    tally.rows.update({"read": counts["read"], "written": counts["written"], "rejected": counts["rejected"]})
    wanted = expected(case, run, folder / "out", manifest)
    assert counts["written"] == len(wanted.rows), (counts, wanted)
    tally.specials["value that does not fit"] += bool(wanted.misfits)
    tally.specials["missing input"] += any(counts["missing"].values())
    tally.specials["repeated key"] += "duplicate_key" in counts["bad"]
    _read(case, tally, folder, run, manifest, wanted)


def _read(case: Case, tally: Tally, folder: Path, run: Run, manifest: Manifest, wanted: Expected) -> None:
    features, turn = folder / "out" / "features" / manifest.version, case.turn
    check_fused(case, folder / "out", wanted, manifest, run.storage)
    check_pandas(case, features, wanted)
    tally.readers.update(["FusedDataset", "pandas", "pyarrow"])
    if turn % _EVERY["polars"] == 0:
        check_polars(case, features, wanted)
        tally.readers["polars"] += 1
    if turn % _EVERY["duckdb"] == 1:
        check_duckdb(case, features, wanted)
        tally.readers["duckdb"] += 1
    if turn % _EVERY["datasets"] == 1:
        check_datasets(case, features, wanted, folder / "cache")
        tally.readers["datasets"] += 1


def _outcome(case: Case, folder: Path) -> tuple[Run, Manifest] | Exception:
    try:
        return run_stages(job_of(case, folder), case.sample)
    except (BarycenterError, ValidationError) as error:
        return error


def check_refusal(case: Case, folder: Path, error: Exception, tally: Tally) -> None:
    """What is refused is refused by one of our errors, which names a column; nothing is committed."""
    assert isinstance(error, JobError | RunError | ValidationError), error
    assert not Storage(str(folder / "out")).exists("manifest.json")
    if "has an input that can be used" in str(error):
        assert rows_refused(case) or case.family == "files", error
        tally.ends["without a row"] += 1
        return
    text = str(error).replace(str(folder), "")
    tally.ends["refused"] += 1
    tally.refused[type(error).__name__, text.splitlines()[-1 if isinstance(error, ValidationError) else 0][:90]] += 1
    named = any(repr(column) in text or f"`{column}`" in text for column in case.columns)
    assert named or (case.broken and "-rows." in text), error
