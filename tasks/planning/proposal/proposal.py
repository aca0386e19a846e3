"""What is proposed for a corpus, put together: every choice with its reason."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.formats.detection import passed_over_in_words
from barycenter.infra.corpus.listing import glob_root
from barycenter.infra.corpus.overlap import check_output_outside_corpus
from barycenter.infra.job.column_names import column_name_problems
from barycenter.infra.job.fields import NO_SECRET
from barycenter.infra.job.models import REPORT_ROWS, CorpusJob, LimitsJob
from barycenter.infra.job.paths import is_uri, path_from, resolve_path
from barycenter.infra.userinfo import holds_secret
from barycenter.tasks.fuse.kept_columns import kept_problem
from barycenter.tasks.planning.proposal.encoders import LocalEncoders
from barycenter.tasks.planning.proposal.inputs import (
    FoundInput,
    find_pictures,
    find_texts,
    find_vectors,
    written_vectors,
)
from barycenter.tasks.planning.proposal.missing_pictures import explain
from barycenter.tasks.planning.proposal.roles import (
    Option,
    find_groups,
    find_keys,
    find_split,
    find_targets,
    has_key_name,
    is_scored,
    judge_target,
)
from barycenter.tasks.planning.proposal.sample import Sample, read_sample

_GENERIC_NAMES = frozenset({"metadata", "data", "train", "rows", "part", "index", "labels"})
_MOST_TEXTS, _MOST_KEPT = 4, 16
FIRST_COUNTS = "of rows with one key the first counts"


@dataclass(frozen=True)
class ProposedInput:
    """An input with its encoder; None for vectors."""

    name: str
    kind: Literal["text", "image", "vector"]
    columns: tuple[str, ...]
    why: str
    encoder: str | None = None
    weights: str | None = None
    encoder_why: str = ""


@dataclass(frozen=True)
class Proposal:
    """A job for a corpus.

    Attributes:
        name: Of the job.
        path: ``corpus.path``, as the job file names it.
        seen: What was looked at.
        key: The key column, or None.
        key_why: Why it, or why none.
        keys: Columns that could be the key.
        repeated: Columns with the name of a key whose values repeat or are missing.
        keep: Columns to keep.
        others: The other columns.
        inputs: The inputs.
        target: The target, or None.
        targets: Columns that could be the target.
        judged: Every column as the target: what it would be, or why it cannot be one.
        split: The split column, or None.
        groups: Columns that could be ``train.group_by``.
        limits: Keys of ``limits`` that must be true, with the reason.
        output: ``output.path``, as the job file names it.
        endpoint_url: Of an S3-compatible server, or None.
        rows: Rows of the corpus, where they are known.
        notes: Sentences on what the user should know.
    """

    name: str
    path: str
    seen: str
    key: str | None
    key_why: str
    keys: list[Option]
    repeated: list[Option]
    keep: list[str]
    others: list[str]
    inputs: list[ProposedInput]
    target: str | None
    targets: list[Option]
    judged: dict[str, Option | str]
    split: Option | None
    groups: list[Option]
    limits: dict[str, str]
    output: str
    endpoint_url: str | None
    rows: int | None
    notes: list[str] = field(default_factory=list)

    def why(self, options: Iterable[Option], name: str | None) -> str:
        """The reason of one of some options."""
        return next((option.why for option in options if option.name == name), "")

    @property
    def split_scores(self) -> bool:
        """Whether there is a split column with rows for tests."""
        return self.split is not None and is_scored(self.split)

    def with_key(self, name: str | None) -> "Proposal":
        """The proposal with another key column."""
        if name == self.key:
            return self
        if name is None:
            why = "rows are named by file and number"
        else:
            repeats = any(option.name == name for option in self.repeated)
            why = self.why([*self.keys, *self.repeated], name) + (f"; {FIRST_COUNTS}" if repeats else "")
        return replace(self, key=name, key_why=why)

    def target_problem(self, name: str) -> str | None:
        """Why a column cannot be the target, or None."""
        if name == self.key:
            return f"`{name}` is the key"
        if (reader := next((each.name for each in self.inputs if name in each.columns), None)) is not None:
            return f"`{name}` is read by the input {reader}; leave that input out to predict it"
        judged = self.judged.get(name, f"`{name}` is no column; there are {', '.join(self.judged)}")
        return judged if isinstance(judged, str) else None

    def with_target(self, name: str | None) -> "Proposal":
        """The proposal with another target, or none."""
        judged = self.judged.get(name) if name is not None else None
        if not isinstance(judged, Option) or name in self.keep:
            return replace(self, target=name)
        keep = [column for column in self.judged if column in (*self.keep, name)]
        others = [column for column in self.others if column != name]
        return replace(self, target=name, targets=[*self.targets, judged], keep=keep, others=others)

    def with_inputs(self, names: Iterable[str]) -> "Proposal":
        """The proposal with some of its inputs."""
        chosen = set(names)
        return replace(self, inputs=[each for each in self.inputs if each.name in chosen])


def propose(path: str, job_file: Path, endpoint_url: str | None = None) -> Proposal:
    """Looks at a corpus and proposes a job for it.

    Args:
        path: File, folder, glob or URI; a relative path is read from the current folder.
        job_file: Where the job file is to be; its paths are relative to that folder.
        endpoint_url: Of an S3-compatible server.

    Raises:
        JobError: On ``PATH``: there is nothing, it cannot be read, or no column of it can be an input.
    """
    folder = job_file.absolute().parent
    absolute = resolve_path(path, Path.cwd())
    options = {"endpoint_url": endpoint_url} if endpoint_url else {}
    try:
        sample, limits = _opened(absolute, options)
    except JobError as error:
        raise JobError("PATH", error.problem) from None
    split = find_split(sample, ())
    keys, repeated = find_keys(sample)
    key, key_why = _chosen_key(sample, keys, repeated)
    taken = {*filter(None, [key, split.name if split else None])}
    targets, others = find_targets(sample, taken)
    groups = find_groups(sample, taken | {option.name for option in targets}, repeated)
    others = [option for option in others if option.name not in {group.name for group in groups}]
    texts = find_texts(sample, taken | {option.name for option in targets})
    pictures, missed = find_pictures(sample, taken - {key}, options)
    if key is None and sample.corpus.key_column is None:
        key, key_why = next(_picture_keys(keys, pictures), (key, key_why))
    notes = [explain(each, sample.corpus.root) for each in missed]
    places = [folder, *([] if is_uri(absolute) else [Path(sample.corpus.root)])]
    inputs_read = {column for each in [*texts, *pictures] for column in each.columns}
    others = [option for option in others if option.name not in inputs_read]
    found = [*texts, *pictures, *find_vectors(sample, taken)]
    inputs = _with_encoders(_arranged(found), LocalEncoders(places), folder)
    notes += _notes(sample, inputs, split)
    if not inputs:
        raise JobError("PATH", _nothing_found(path, sample, notes))
    for each in found:
        limits |= each.needs
    wanted = [*targets, *others, *([split] if split else []), *groups]
    keep = _kept(sample, key, [option.name for option in wanted], [each.name for each in inputs])
    targets, others, groups = ([option for option in part if option.name in keep] for part in (targets, others, groups))
    name = _job_name(absolute)
    used = {
        *keep,
        *filter(None, [key, sample.corpus.key_column]),
        *(column for each in inputs for column in each.columns),
    }
    return Proposal(
        name=name,
        path=absolute if Path(path).is_absolute() or is_uri(path) else os.path.relpath(absolute, folder),
        seen=sample.described(),
        key=key,
        key_why=key_why,
        keys=[option for option in keys if option.name != sample.corpus.key_column],
        repeated=repeated,
        keep=keep,
        others=[column for column in sample.corpus.columns if column not in used],
        inputs=inputs,
        target=targets[0].name if targets else None,
        targets=[*targets, *others],
        judged=_judged(sample, key, [each.name for each in inputs]),
        split=split if split and split.name in keep else None,
        groups=groups,
        limits=limits,
        output=_output(name, absolute, sample.corpus.root, folder),
        endpoint_url=endpoint_url,
        rows=sample.rows if sample.whole else None,
        notes=notes,
    )


def _opened(path: str, options: dict[str, Any]) -> tuple[Sample, dict[str, str]]:
    """The sample, and what ``limits`` must allow for the corpus itself, with the reason."""
    if holds_secret(path):
        raise JobError("PATH", NO_SECRET)
    needs = {"http": "the corpus is read over http(s)"} if path.startswith(("http://", "https://")) else {}
    limits = LimitsJob(**dict.fromkeys(needs, True))
    try:
        return read_sample(CorpusJob(path=path), limits, options), needs
    except JobError as error:
        if error.key != "limits.outside_corpus":
            raise
    needs["outside_corpus"] = "the pictures are links that lead out of the corpus folder"
    return read_sample(CorpusJob(path=path), LimitsJob(**dict.fromkeys(needs, True)), options), needs


def _judged(sample: Sample, key: str | None, inputs: list[str]) -> dict[str, Option | str]:
    """Each column as the target, or why it cannot be one: a head learns it from the features, which keep it."""
    judged: dict[str, Option | str] = {}
    for name, column in sample.columns.items():
        problems = [kept_problem(column.kind), *(said for _, said in column_name_problems(key, [name], inputs, {}))]
        problem = next(filter(None, problems), None)
        judged[name] = judge_target(column) if problem is None else f"`{name}` cannot be kept: {problem}"
    return judged


def _chosen_key(sample: Sample, keys: list[Option], repeated: list[Option]) -> tuple[str | None, str]:
    default = sample.corpus.key_column
    if default is not None:
        return None, f"such a corpus brings a key of its own, {default}, unless another is named"
    if keys and has_key_name(keys[0].name) and not list(column_name_problems(keys[0].name, [], [], {})):
        return keys[0].name, keys[0].why
    none = "no column is called like a key and different in every row; rows are named by file and number"
    return None, "; ".join([none, *(f"{option.name}: {option.why}" for option in repeated)])


def _picture_keys(keys: list[Option], pictures: list[FoundInput]) -> Iterator[tuple[str, str]]:
    """Columns that name a picture of its own in every row, and so the row."""
    for option in keys:
        if any(option.name in each.columns for each in pictures):
            yield option.name, f"{option.why}; each is the name of a picture"


def _arranged(found: list[FoundInput]) -> list[ProposedInput]:
    """The inputs: several columns of texts are one input beside pictures or vectors, else one each."""
    single = [each for each in found if each.kind == "text" and not each.is_list][:_MOST_TEXTS]
    lists = [each for each in found if each.kind == "text" and each.is_list]
    rest = [each for each in found if each.kind != "text"]
    if len(single) > 1 and (lists or rest):
        columns = tuple(each.columns[0] for each in single)
        single = [FoundInput("text", columns, "columns of text, joined by newlines")]
    arranged = [*single, *lists, *rest]
    names: list[str] = []
    for each in arranged:
        alone = each.kind != "vector" and sum(other.kind == each.kind for other in arranged) == 1
        names.append(_input_name(each.kind if alone else each.columns[0], each.kind, names))
    return [ProposedInput(name, each.kind, each.columns, each.why) for name, each in zip(names, arranged, strict=True)]


def _input_name(wanted: str, kind: str, taken: list[str]) -> str:
    """A name for an input: ASCII letters, digits and ``_``, unlike those that are taken."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", wanted).strip("_") or kind
    name = f"{kind}_{name}" if name[0].isdigit() or name in REPORT_ROWS else name
    number = 2
    plain = name
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name


def _with_encoders(inputs: list[ProposedInput], local: LocalEncoders, folder: Path) -> list[ProposedInput]:
    made = []
    for each in inputs:
        if each.kind == "vector":
            made.append(each)
            continue
        chosen = local.choose(each.kind)
        encoder = path_from(chosen.encoder, folder)
        weights = path_from(chosen.weights, folder) if chosen.weights is not None else None
        made.append(replace(each, encoder=encoder, weights=weights, encoder_why=chosen.why))
    return made


def _kept(sample: Sample, key: str | None, wanted: Iterable[str], inputs: list[str]) -> list[str]:
    """The columns among those wanted that the features can hold, in the corpus's order."""
    names = set(wanted)
    keep: list[str] = []
    for name in sample.columns:
        if name not in names or name == key or kept_problem(sample.columns[name].kind) is not None:
            continue
        if not list(column_name_problems(key, [*keep, name], inputs, {})) and len(keep) < _MOST_KEPT:
            keep.append(name)
    return keep


def _notes(sample: Sample, inputs: list[ProposedInput], split: Option | None) -> list[str]:
    notes = list(sample.unusable)
    notes += [
        f"`{name}` holds vectors written as text; write the table as Parquet or JSON Lines to have them as an input"
        for name in written_vectors(sample)
    ]
    if sample.whole and sample.rows < 2:
        notes.append(
            "the corpus has one row; an alignment needs at least two, so name more files, or alignment.method: none"
        )
    elif len(inputs) == 1:
        notes.append(
            f"there is one input only ({inputs[0].name}); an alignment brings two or more together, so the vectors are "
            "those of this input, in fewer dimensions"
        )
    if split is not None and not is_scored(split):
        notes.append(f"no row read has a `{split.name}` of 'test' (but {split.why}); a head would not be scored by it")
    if passed_over := sample.corpus.listing["files"]["passed_over"]:
        notes.append(f"files {passed_over_in_words(passed_over)}")
    return notes


def _nothing_found(path: str, sample: Sample, notes: list[str]) -> str:
    columns = list(sample.columns)
    shown = ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")
    also = f"; {'; '.join(notes)}" if notes else ""
    return (
        f"{path}: no column holds texts of several words, pictures that can be read, or lists of numbers of one length "
        f"(columns: {shown or 'none'}){also}"
    )


def _job_name(path: str) -> str:
    """A name for the job: of the file or the folder, or of the folder above where that says nothing."""
    is_pattern = glob.has_magic(path) and not Path(path).exists()
    parts = [part for part in (glob_root(path) if is_pattern else path).rstrip("/").split("/") if part]
    stem = parts[-1].partition(".")[0] if parts else ""
    if stem.lower().partition("-")[0] in _GENERIC_NAMES and len(parts) > 1 and not parts[-2].endswith(":"):
        stem = parts[-2]
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "job"


def _output(name: str, corpus: str, root: str, folder: Path) -> str:
    """A folder that is not there yet, beside the job file or, where that is inside the corpus, beside the corpus."""
    above = [] if is_uri(root) else [Path(root).absolute().parent]
    for place in [folder, *above]:
        path, number = place / "out" / name, 2
        while path.exists():
            path, number = place / "out" / f"{name}-{number}", number + 1
        try:
            check_output_outside_corpus(corpus, str(path))
        except JobError:
            continue
        return os.path.relpath(path, folder)
    raise JobError("PATH", f"{corpus}: there is no folder outside of it for the output; give a folder below it")
