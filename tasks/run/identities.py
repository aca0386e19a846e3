"""What each thing that a run keeps depends on: the one place where its identity is made.

Whether something is there already is asked of storage by name, and the name is a digest of the parts listed here. So
every setting that changes the bytes must be among the parts, and none that does not: where things go, who works on
them, and what a run does about bad rows at its end (``name``, ``output.path``, ``ray``, ``storage``, the speed of
downloads, ``limits.max_bad_fraction``; see ``barycenter.infra.job.models.NOT_IN_THE_JOB_HASH``). What was found by
trying (batch, threads, fast paths) is in plan.json, and with it the versions of libraries: neither is in an identity.
``tests/tasks/run/test_identities.py`` holds the table of which key belongs to which identity.

A list keeps its order where the order matters, as that of the inputs does.
"""

from collections.abc import Mapping
from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.encoders.fingerprint import installed_version
from barycenter.infra.job.models import CorpusJob, OutputJob, TrainJob
from barycenter.infra.versions.embedding_files import embedding_path, repairs
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest

LAYOUTS = {"embeddings": 1, "moments": 2, "alignment": 3, "features": 1, "head": 2, "report": 3}
"""Raised by one where the code would write other bytes from the same parts (vectors: ``IMPLEMENTATION_VERSION``)."""

REJECTING_LIMITS = ("max_pixels", "formats", "outside_corpus", "http", "max_picture_bytes")
"""Limits that decide which pictures are rejects, and as what. Not those of speed: a server that did not answer in time
may answer next time, which ``--retry-bad`` is for."""

LEARNED = ("kernel-cca", "autoencoder", "contrastive")
"""Alignment methods that draw random numbers."""

Parts = dict[str, Any]


def encoding_parts(run: Run, name: str) -> Parts:
    """What a vector depends on beside the content that is encoded, and whether a picture is a reject."""
    return {
        "layout": LAYOUTS["embeddings"],
        "encoder": run.encoders[name].encoder_id,
        "limits": {limit: getattr(run.job.limits, limit) for limit in REJECTING_LIMITS}
        if run.specs[name].kind == "image"
        else {},
    }


def encoding_id(run: Run, name: str) -> str:
    """Names what rows of equal content may be taken over within: see :mod:`barycenter.tasks.embed.known_rows`."""
    return digest(encoding_parts(run, name))


def embedding_parts(run: Run, name: str) -> Parts:
    """Everything that is written into an embedding file of one input, beside the shard that its file is named by.

    The columns come with the type they are read as: a file that is added to the corpus may change it for all files.
    """
    weights, key = run.weights_column(name), run.corpus.key_column
    return encoding_parts(run, name) | {
        "columns": run.corpus.describe_columns(run.columns(name)),
        "weights": run.corpus.describe_columns([weights] if weights is not None else []),
        "key": run.corpus.describe_columns([key] if key is not None else []),
    }


def embedding_ids(run: Run) -> dict[str, str]:
    """Names the folder of each input's embedding files; in the order of the inputs."""
    return {name: digest(embedding_parts(run, name)) for name in run.inputs}


def embeddings_key(run: Run) -> str:
    """Names the rows that a run fits and fuses.

    Those are every input and every shard, in order, what was mended, and which row of a key counts.
    """
    ids, shards = embedding_ids(run), [shard.id for shard in run.shards]
    mended = repairs(run.storage)
    if mended:
        ours = {embedding_path(name, embedding_id, shard) for name, embedding_id in ids.items() for shard in shards}
        mended = {path: content for path, content in mended.items() if path in ours}
    which = run.job.corpus.on_duplicate
    return digest(list(ids.items()), shards, mended, *([which] if which == "last" else []))


def moments_parts(run: Run) -> Parts:
    """What the moments of the inputs depend on, beside the shards: folds, sides and labels come from kept columns."""
    return {
        "layout": LAYOUTS["moments"],
        "embeddings": list(embedding_ids(run).items()),
        "folds": run.job.alignment.folds,
        **_train_columns(run),
    }


def alignment_parts(run: Run) -> Parts:
    """The settings of a fit; with :func:`embeddings_key` they name the fit itself.

    A kept alignment is one of the same settings that was fitted on other rows.
    """
    settings, average, train = run.job.alignment, run.job.average, run.job.train
    return {
        "layout": LAYOUTS["alignment"],
        "embeddings": list(embedding_ids(run).items()),
        "method": settings.method,
        "dim": [settings.dim, run.job.explicit("alignment.dim")],
        "regularization": settings.regularization,
        "folds": settings.folds,
        "average": average.method,
        "weights": list(run.job.input_weights.items()) if average.method == "weighted" else None,
        "task": train.task if train is not None else None,
        "seed": run.job.seed if settings.method in LEARNED else None,
        **_train_columns(run),
    }


def alignment_settings(run: Run) -> str:
    """Names the settings of a fit."""
    return digest(alignment_parts(run))


def fit_key(run: Run) -> str:
    """Names a fit: these settings on these embeddings."""
    return digest(embeddings_key(run), alignment_settings(run))


def version_parts(
    corpus: CorpusJob, output: OutputJob, on_bad_input: str, average: str, weights: Mapping[str, float] | None
) -> Parts:
    """What the feature files depend on, beside the alignment and the embeddings."""
    return {
        "layout": LAYOUTS["features"],
        "average": average,
        "weights": None if weights is None else list(weights.items()),
        "key": corpus.key or "key",
        "on_duplicate": corpus.on_duplicate,
        "keep": list(corpus.keep),
        "dtype": output.dtype,
        "partition_by": list(output.partition_by),
        "keep_aligned": output.keep_aligned,
        "on_bad_input": on_bad_input,
    }


def version_id(run: Run, alignment_id: str, average: str, weights: Mapping[str, float] | None) -> str:
    """Names the features of one alignment on a run's embeddings."""
    job = run.job
    return digest(
        alignment_id, embeddings_key(run), version_parts(job.corpus, job.output, job.on_bad_input, average, weights)
    )


def head_parts(train: TrainJob, seed: int) -> Parts:
    """What a head depends on, beside the version of the features."""
    return {
        "layout": LAYOUTS["head"],
        "target": train.target,
        "task": train.task,
        "head": train.head,
        "split": train.split,
        "group_by": train.group_by,
        "seed": seed,
    }


def head_folder(version: str, train: TrainJob, seed: int) -> str:
    """Where a head lies in the output."""
    return f"head/{version}/{digest(head_parts(train, seed))}"


def report_parts(run: Run, manifest: Manifest, summary: Mapping[str, Any]) -> Parts:
    """What is computed for a report; the job's name, the lineage and the speed are written anew each time."""
    train = run.job.train
    return {
        "layout": LAYOUTS["report"],
        "code": installed_version("barycenter"),
        "version": manifest.version,
        "alignment": {part: value for part, value in summary.items() if part != "warnings"},
        "folds": run.job.alignment.folds,
        "head": head_parts(train, run.job.seed) if train is not None else None,
    }


def report_id(run: Run, manifest: Manifest, summary: Mapping[str, Any]) -> str:
    """Identity of a report."""
    return digest(report_parts(run, manifest, summary))


def _train_columns(run: Run) -> Parts:
    """Name, origin and type of the columns that target, split and groups come from; [] where there is none."""
    train = run.job.train
    return {
        key: run.corpus.describe_columns([column] if (column := getattr(train, key, None)) is not None else [])
        for key in ("target", "split", "group_by")
    }
