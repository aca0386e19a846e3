"""The job file as frozen models: every key, every default, every check that needs no data.

The models are the parameters of the Prefect flows as well, so their descriptions become the text of the form in its UI.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from barycenter.infra.job.column_names import column_name_problems, with_named_columns_kept
from barycenter.infra.job.deployment import DeploymentJob
from barycenter.infra.job.fields import (
    AutoCount,
    AutoShare,
    Count,
    Duration,
    Flag,
    Folds,
    Names,
    Natural,
    Section,
    Share,
    Text,
    check_column_names,
    invalid,
    number_validator,
    quote_value,
    seconds_of,
)
from barycenter.infra.job.paths import resolve_encoder, resolve_path
from barycenter.infra.job.places import RayJob, StorageJob

# Pillow's names; EPS and WMF are not among them because both run outside programs.
FORMATS = ["PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA", "AVIF"]
FORMATS += ["JPEG2000", "ICO", "PSD", "QOI", "SGI", "DDS", "FLI"]
REPORT_ROWS = ("naive_mean", "pca_mean", "concat", "concat_imputed", "fused")
NOT_IN_THE_JOB_HASH: dict[str, Any] = {
    "output": {"path", "reuse", "publish", "promote", "busy"},
    "ray": True,
    "deployment": True,
    "limits": {"deadline"},
}
"""Keys that do not change results: where these are written, the workers, how long they may take, and Prefect's."""

_MULTI_INPUT_METHODS = ("procrustes", "cca", "kernel-cca", "contrastive")


class CorpusJob(Section):
    """Where the rows come from."""

    path: Text = Field(
        description="File, folder, glob or URI: .parquet .jsonl .csv .tsv .tar, or a folder of pictures."
    )
    key: Text | None = Field(None, description="Unique id column; without it: source file name and row number.")
    on_duplicate: Literal["first", "last", "fail"] = Field(
        "first", description="Of rows with one key the first counts, or the last; fail: the run stops."
    )
    keep: Names = Field(
        [], description="Columns carried to the output, beside those that train and output.partition_by name."
    )
    rows_per_shard: Count = Field(4096, description="Rows in one unit of work.")

    @field_validator("keep")
    @classmethod
    def _without_key(cls, keep: list[str], info: Any) -> list[str]:
        """Removes the key from the kept columns, as it is always written."""
        return [name for name in keep if name != info.data.get("key")]


class PreprocessingJob(Section):
    """In place of an image encoder's own transforms; all four keys are given."""

    resize: Count | None = Field(None, description="Shorter side after resizing, in pixels.")
    crop: Count | None = Field(None, description="Side of the center crop, in pixels.")
    mean: list[float] | None = Field(None, min_length=3, max_length=3, description="Channel means, red green blue.")
    std: list[float] | None = Field(None, min_length=3, max_length=3, description="Channel deviations.")


class InputCorpusJob(Section):
    """A table of an input's own, joined to the corpus on the key; several rows of a key are averaged."""

    path: Text = Field(description="File, folder, glob or URI, as for corpus.path.")
    key: Text | None = Field(None, description="Column that holds the corpus key; the name of corpus.key if left out.")


class InputJob(Section):
    """One input of a row: which column, which encoder."""

    kind: Literal["text", "image", "vector"] = Field(description="What the column holds.")
    column: Annotated[str | list[str], BeforeValidator(check_column_names)] = Field(
        description="Column name; for text also a list of names, joined by newline. Lists are averaged."
    )
    corpus: InputCorpusJob | None = Field(None, description="The input's own table, where it is not in the corpus.")
    weights_column: Text | None = Field(None, description="List column of weights for the average of several values.")
    long_text: Literal["truncate", "window-mean"] = Field(
        "truncate", description="Longer texts than the encoder reads: their beginning, or the mean over windows."
    )
    encoder: Text | None = Field(
        None, description="Hub id or local folder (transformers), torchvision/<architecture>, builtin/<name>."
    )
    weights: Text | None = Field(None, description="Local weights file, .safetensors or .pth.")
    trust_remote_code: Flag = Field(False, description="Run code that comes with the model. Only for models you trust.")
    preprocessing: PreprocessingJob | None = Field(None, description="Overrides of the image transforms.")
    batch: AutoCount = Field("auto", description="Rows (image, vector) or tokens (text) in a batch.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Number format the model runs in.")
    reproducible: Flag | None = Field(
        None, description="Same bytes for the same value: true at any price, false never, else where it costs nothing."
    )

    def resolved(self, base: Path) -> "InputJob":
        """Returns the input with its local paths made absolute, relative ones from the folder ``base``."""
        changes: dict[str, Any] = {
            key: resolve(value, base)
            for key, resolve in (("weights", resolve_path), ("encoder", resolve_encoder))
            if (value := getattr(self, key)) is not None
        }
        if self.corpus is not None:
            changes["corpus"] = self.corpus.model_copy(update={"path": resolve_path(self.corpus.path, base)})
        return self.model_copy(update=changes)

    @property
    def columns(self) -> list[str]:
        """The columns this input reads."""
        return [self.column] if isinstance(self.column, str) else list(self.column)

    def required_columns(self, where: str) -> dict[str, list[str]]:
        """Returns the columns this input reads, by the job key that names them; ``where`` is the input's own key."""
        weights = {} if self.weights_column is None else {f"{where}.weights_column": [self.weights_column]}
        return {f"{where}.column": self.columns, **weights}

    @model_validator(mode="after")
    def _check_keys_of_kind(self) -> Self:
        """Checks that the input has the keys that its kind needs, and none that it cannot use."""
        if self.kind != "text" and not isinstance(self.column, str):
            raise invalid(f"only text inputs join several columns; give the {self.kind} input one", "column")
        if self.kind == "vector":
            for key in ("encoder", "weights", "preprocessing"):
                if getattr(self, key) is not None:
                    raise invalid("a vector input is passed through and has none; remove it", key)
        elif self.encoder is None:
            raise invalid(f"{'an image' if self.kind == 'image' else 'a text'} input needs one", "encoder")
        if self.kind != "text" and self.long_text != "truncate":
            raise invalid("only text inputs have it; remove it", "long_text")
        if self.kind == "text" and self.preprocessing is not None:
            raise invalid("only image inputs have it; remove it", "preprocessing")
        if self.weights is not None and str(self.encoder).startswith("builtin/"):
            raise invalid(f"{self.encoder} has no weights; remove it", "weights")
        if self.dtype != "float32" and (self.kind == "vector" or str(self.encoder).startswith("builtin/")):
            raise invalid("only models have it; remove it", "dtype")
        return self


class AlignmentJob(Section):
    """How the embedding spaces are brought together."""

    method: Literal["none", "pca", "procrustes", "joint", "cca", "kernel-cca", "autoencoder", "contrastive", "auto"] = (
        Field("auto", description="How the spaces are aligned.")
    )
    dim: Count = Field(256, description="Width of the fused vector.")
    regularization: AutoShare = Field("auto", description="Ridge relative to the mean variance of each input.")
    folds: Folds = Field(5, description="Cross-validation folds.")
    from_: Text | None = Field(
        None, alias="from", description="Folder of another run: use its alignment and average, fit nothing."
    )


class AverageJob(Section):
    """How the aligned representations become one vector."""

    method: Literal["mean", "weighted", "spherical", "posterior", "auto"] = Field("auto", description="Which average.")
    weights: dict[str, Share] = Field({}, description="Weight of each input, for weighted; 1.0 where left out.")


class OutputJob(Section):
    """What is written where."""

    path: Text = Field(description="Folder or URI of the run's results.")
    partition_by: Names = Field([], description="Columns that become folders; they are kept.")
    dtype: Literal["float32", "float16"] = Field("float32", description="Number format of the vectors.")
    keep_aligned: Flag = Field(False, description="Also write aligned_<input> columns.")
    reuse: Names = Field(
        [], description="Other outputs whose embeddings of the same encoder are taken over, row by row, by content."
    )
    promote: Literal["auto", "manual"] = Field(
        "auto", description="auto: readers see a new version at once; manual: after `barycenter promote`."
    )
    busy: Literal["wait", "skip", "fail"] = Field(
        "wait", description="Where another process holds the output: wait for it, skip the run, or fail."
    )


class LimitsJob(Section):
    """Limits on bad inputs, pictures, access and memory."""

    deadline: Duration | None = Field(
        None, description="Stop cleanly after this time, e.g. 6h; the next run goes on with what is done."
    )
    max_bad_fraction: Annotated[float, Field(ge=0, le=1), number_validator(float, 0, "a number from 0 to 1")] = Field(
        0.5, description="More bad inputs than this, null and empty ones among them, stop the run before the commit."
    )
    max_pixels: Count = Field(50_000_000, description="Larger pictures are rejected undecoded.")
    formats: Names = Field(FORMATS, description="Picture formats that may be decoded, by Pillow's names.")
    outside_corpus: Flag = Field(False, description="May picture paths leave the corpus folder.")
    http: Flag = Field(False, description="May pictures be fetched by http(s).")
    http_concurrency: Count = Field(8, description="Pictures that one worker fetches by http(s) at a time.")
    http_timeout: Annotated[float, Field(gt=0), number_validator(float, 0.001, "a number of seconds above 0")] = Field(
        30.0, description="Seconds that a picture may take by http(s)."
    )
    max_picture_bytes: Count = Field(256 * 2**20, description="Larger picture files are rejected unread.")
    join_memory_mb: Count = Field(1024, description="MiB that a worker may use to join the inputs' own tables.")

    @property
    def deadline_seconds(self) -> float | None:
        """What the deadline leaves a run, in seconds; None for any time."""
        return None if self.deadline is None else seconds_of(self.deadline)

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, formats: list[str]) -> list[str]:
        for name in formats:
            if name not in FORMATS:
                raise invalid(f"{quote_value(name)} is not one of {', '.join(FORMATS)}")
        return formats


class TrainJob(Section):
    """The head trained on the fused vectors."""

    target: Text = Field(description="Column to predict; it is kept.")
    task: Literal["auto", "classification", "multilabel", "regression"] = Field("auto", description="Kind of target.")
    head: Literal["linear", "mlp", "gated", "attention"] = Field("linear", description="Which head.")
    split: Text | None = Field(None, description="Column naming train/test; without it a hash of the key or group_by.")
    group_by: Text | None = Field(None, description="Column whose equal values never cross a split or fold.")


class Job(Section):
    """A whole job file."""

    name: Text = Field("job", description="Name of the run in Prefect and Ray.")
    seed: Natural = Field(0, description="Seed of everything random.")
    corpus: CorpusJob = Field(description="Where the rows come from.")
    inputs: dict[str, InputJob] = Field(description="The inputs of a row by name; their order is kept.")
    alignment: AlignmentJob = Field(AlignmentJob(), description="How the spaces are aligned.")
    average: AverageJob = Field(AverageJob(), description="How the aligned vectors are averaged.")
    output: OutputJob = Field(description="What is written where.")
    on_bad_input: Literal["keep", "drop", "fail"] = Field(
        "keep", description="keep: the row is written without that input; drop: it goes; fail: the run stops."
    )
    limits: LimitsJob = Field(LimitsJob(), description="Limits on bad inputs, pictures, access and memory.")
    storage: StorageJob = Field(StorageJob(), description="Object storage.")
    train: TrainJob | None = Field(None, description="The head, where there is a target.")
    ray: RayJob = Field(RayJob(), description="The workers.")
    deployment: DeploymentJob = Field(DeploymentJob(), description="When and where Prefect runs the job.")

    @model_validator(mode="before")
    @classmethod
    def _keep_columns_of_other_sections(cls, values: Any) -> Any:
        """Adds the columns that ``train`` and ``output.partition_by`` name to ``corpus.keep``."""
        return with_named_columns_kept(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        """Checks keys that depend on other sections; raises one error with all problems."""
        problems = [*self._name_problems(), *self._column_problems(), *self._method_problems()]
        if problems:
            raise PydanticCustomError("jobs", "{text}", {"text": "; ".join(map(": ".join, problems)), "all": problems})
        return self

    def _name_problems(self) -> Iterator[tuple[str, str]]:
        if not self.inputs:
            yield "inputs", "at least one input is needed; add one"
        for name in self.inputs:
            if not (name.isascii() and name.isidentifier()):
                yield (
                    f"inputs.{name}",
                    "an input's name has letters, digits and _ only and does not begin with a digit; rename it",
                )
            elif name in REPORT_ROWS:
                yield f"inputs.{name}", f"{name} is the name of a row in the report; choose another name"
        read = self.required_columns()
        for name, part in self.inputs.items():
            read |= part.required_columns(f"inputs.{name}")
        yield from column_name_problems(self.corpus.key, self.corpus.keep, self.inputs, read)

    def _column_problems(self) -> Iterator[tuple[str, str]]:
        if self.corpus.key in self.output.partition_by:
            yield (
                "output.partition_by",
                f"{self.corpus.key!r} is the key: every row would be a folder of its own; remove it",
            )

    def _method_problems(self) -> Iterator[tuple[str, str]]:
        if len(self.inputs) == 1 and self.alignment.method in _MULTI_INPUT_METHODS:
            yield "alignment.method", f"{self.alignment.method} needs at least two inputs; use pca, joint or none"
        if len(self.inputs) == 1 and self.average.method == "posterior":
            yield "average.method", "posterior needs at least two inputs; use mean"
        for name in self.average.weights:
            if name not in self.inputs:
                yield f"average.weights.{name}", f"no such input; the inputs are {', '.join(self.inputs)}"
        method, differ = self.average.method, len(set(self.input_weights.values())) > 1
        if method != "weighted" and differ:
            yield "average.weights", f"{method} ignores them; set average.method to weighted, or remove them"
        if self.average.method == "weighted" and not sum(self.input_weights.values()) > 0:
            yield "average.weights", "weighted needs at least one weight above 0; raise one"

    @property
    def input_weights(self) -> dict[str, float]:
        """The weight of each input in the average, in the order of the inputs."""
        return {name: self.average.weights.get(name, 1.0) for name in self.inputs}

    def required_columns(self) -> dict[str, list[str]]:
        """Returns the columns of ``corpus.path`` that this job reads, by the job key that names them."""
        columns = {"corpus.key": [self.corpus.key]} if self.corpus.key is not None else {}
        for key in ("target", "split", "group_by"):
            if (column := getattr(self.train, key, None)) is not None:
                columns[f"train.{key}"] = [column]
        if self.output.partition_by:
            columns["output.partition_by"] = list(self.output.partition_by)
        columns["corpus.keep"] = list(self.corpus.keep)
        for name, part in self.inputs.items():
            if part.corpus is None:
                columns |= part.required_columns(f"inputs.{name}")
        return columns

    def explicit(self, path: str) -> bool:
        """Whether the user gave the key ``path`` (dotted, as in the file) rather than leaving it to its default.

        >>> job = Job.model_validate({
        ...     "corpus": {"path": "data.jsonl"},
        ...     "inputs": {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"}},
        ...     "output": {"path": "out"},
        ... })
        >>> job.alignment.dim, job.explicit("alignment.dim"), job.explicit("corpus.path")
        (256, False, True)
        """
        node: Any = self
        for part in path.split("."):
            if isinstance(node, Section):
                name = node.attributes_by_key().get(part)
                if name is None or name not in node.model_fields_set:
                    return False
                node = getattr(node, name)
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                return False
        return True

    def resolved(self, base: Path) -> "Job":
        """Returns the job with its local paths made absolute, relative ones from the folder ``base``.

        Returns:
            A job whose corpus.path, output.path, output.reuse, alignment.from, weights and local encoder folders are
            absolute; URIs and hub ids are as they were, and so is what ``explicit`` returns.
        """
        inputs = {name: part.resolved(base) for name, part in self.inputs.items()}
        changes: dict[str, Any] = {
            "corpus": self.corpus.model_copy(update={"path": resolve_path(self.corpus.path, base)}),
            "output": self.output.model_copy(
                update={
                    "path": resolve_path(self.output.path, base),
                    "reuse": [resolve_path(folder, base) for folder in self.output.reuse],
                }
            ),
            "inputs": inputs,
        }
        if self.alignment.from_ is not None:
            changes["alignment"] = self.alignment.model_copy(update={"from_": resolve_path(self.alignment.from_, base)})
        return self.model_copy(update=changes)

    def settings(self) -> dict[str, Any]:
        """Every value except ``NOT_IN_THE_JOB_HASH``, defaults included, as JSON holds it."""
        return self.model_dump(mode="json", by_alias=True, exclude=NOT_IN_THE_JOB_HASH)

    def fingerprint(self) -> str:
        """Returns the job hash (hexadecimal): of all :meth:`settings`."""
        return hashlib.blake2b(json.dumps(self.settings()).encode(), digest_size=12).hexdigest()
