"""An input that turned out mostly bad stops the run right after it was embedded, with its reasons."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from barycenter.fusion.errors import BadInputsError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.embed.advice import describe_reasons
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids

_THREADS = 8
_FILES_READ = 200
_DETAIL = 160


def check_bad_fraction(run: Run, name: str, known: Counter[str] | None = None, just_done: Iterable[str] = ()) -> None:
    """Stops a run of which too many rows lack one input, which is embedded.

    ``known`` are the reasons of the bad rows of the shards in ``just_done``; of others the embedding files are asked,
    but for those of the newest version, which went through this check.

    Raises:
        BadInputsError: All rows are bad, or more than ``limits.max_bad_fraction`` of them; with the reasons, a row of
            each, and what to do.
    """
    allowed, embedding_id = run.job.limits.max_bad_fraction, embedding_ids(run)[name]
    passed = set(just_done) | _committed(run, name)
    others = [embedding_path(name, embedding_id, shard.id) for shard in run.shards if shard.id not in passed]
    with ThreadPoolExecutor(_THREADS) as pool:
        bad = (known or Counter()).total() + sum(pool.map(lambda path: bad_rows(run.storage, path), others))
    if bad <= allowed * run.rows and (bad < run.rows or not bad):
        return
    counts, examples = _reasons(run, name)
    if bad == run.rows:
        raise BadInputsError(
            f"input {name}: none of {run.rows:,} rows can be used, so there is nothing to align: "
            f"{describe_reasons(counts, examples)}. Nothing was committed; correct them and run again with "
            f"--retry-bad, or take {name} out of inputs"
        )
    share = f"{bad:,} of {run.rows:,} rows ({bad / run.rows:.0%})"
    raise BadInputsError(
        f"input {name}: {share} cannot be used, and limits.max_bad_fraction is {allowed:g}: "
        f"{describe_reasons(counts, examples)}; nothing was committed; correct them and run again with --retry-bad, "
        "or raise the limit"
    )


def bad_rows(storage: Storage, path: str) -> int:
    """Rows of an embedding file without a good input, from its footer alone where that says so."""
    with storage.parquet(path) as file:
        metadata = file.metadata
        at = metadata.schema.names.index("reason")
        count = 0
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            statistics = part.column(at).statistics
            if statistics is None or not statistics.has_null_count:
                reasons = file.read_row_group(group, columns=["reason"]).column("reason")
                count += len(reasons) - reasons.null_count
            else:
                count += part.num_rows - statistics.null_count
    return count


def _committed(run: Run, name: str) -> set[str]:
    """Shards of the newest version, if it was made of the same embeddings."""
    manifest = newest_manifest(run.storage)
    if manifest is None:
        return set()
    entry = manifest.inputs.get(name)
    return set(manifest.shards) if entry and entry["embedding_id"] == embedding_ids(run)[name] else set()


def _reasons(run: Run, name: str) -> tuple[Counter[str], dict[str, str]]:
    """Counts of the reasons in some embedding files, and one row of each reason."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    step, embedding_id = max(1, len(run.shards) // _FILES_READ), embedding_ids(run)[name]
    for shard in run.shards[::step]:
        path = embedding_path(name, embedding_id, shard.id)
        if not run.storage.exists(path):
            continue
        table = run.storage.read_table(path, columns=["key", "reason", "detail"])
        for row in table.filter(table.column("reason").is_valid()).to_pylist():
            counts[row["reason"]] += 1
            detail = " ".join(str(row["detail"] or "").split())[:_DETAIL]
            examples.setdefault(row["reason"], f"row {row['key']}" + (f": {detail}" if detail else ""))
    return counts, examples
