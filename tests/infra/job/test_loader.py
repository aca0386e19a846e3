from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from barycenter.fusion.errors import JobError
from barycenter.infra.job.loader import dump_job, load_job, parse_job
from barycenter.infra.job.models import Job

JOB = """
corpus: {path: rows.jsonl, key: id, keep: [label]}
inputs:
  text: {kind: text, column: text, encoder: builtin/hashing}
  image: {kind: image, column: image, encoder: torchvision/mobilenet_v2}
output: {path: out}
train: {target: label}
"""
FORMATS = "PNG, JPEG, MPO, TIFF, WEBP, BMP, GIF, PPM, TGA, AVIF, JPEG2000, ICO, PSD, QOI, SGI, DDS, FLI"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        load_job(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_paths_are_read_from_the_files_folder(file: Path) -> None:
    job = load_job(file)
    assert job.corpus.path == str(file.parent / "rows.jsonl")
    assert not job.explicit("alignment.dim")


def test_overrides_win(file: Path) -> None:
    overrides = ["alignment.dim=64", "corpus.keep=[label, lang]", "alignment.from=s3://b/a=b", "train=null"]
    job = load_job(file, [*overrides, "ray.workers=2"])
    assert (job.alignment.dim, job.corpus.keep, job.train) == (64, ["label", "lang"], None)
    assert (job.alignment.from_, job.ray.workers) == ("s3://b/a=b", 2)
    assert job.explicit("alignment.dim")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("name=exp #7", "exp #7"),
        ("name=a: b", "a: b"),
        ("name=on", "on"),
        ("name=5", "5"),
        ("name=1e3", "1e3"),
        ("name=2024-01-01", "2024-01-01"),
        ("name=12:30", "12:30"),
        ("name=[draft] x", "[draft] x"),
        ("name=*", "*"),
        ("name='two words'", "two words"),
        ('name="a # b"', "a # b"),
        ("seed=7", 7),
        ("alignment.regularization=1e-3", 1e-3),
        ("alignment.regularization=auto", "auto"),
        ("limits.http=on", True),
        ("limits.max_bad_fraction=1", 1.0),
        ("limits.deadline=1h30m", "1h30m"),
        ("alignment.from=null", None),
        ("alignment.from=s3://b/x #1", "s3://b/x #1"),
        ("corpus.keep=[label, lang, 'a #b']", ["label", "lang", "a #b"]),
        ("inputs.text.column=a: b", "a: b"),
        ("inputs.text.column=[text, lang]", ["text", "lang"]),
    ],
)
def test_a_value_on_the_command_line_is_taken_as_it_is_typed(file: Path, override: str, value: object) -> None:
    node = load_job(file, [override]).model_dump(by_alias=True)
    for part in override.partition("=")[0].split("."):
        node = node[part]
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize("name", ["5", "on", "2024-01-01", "1.5"])
def test_a_name_in_the_file_that_yaml_reads_as_something_else_is_to_be_quoted(file: Path, name: str) -> None:
    file.write_text(JOB.replace("name: emoji", f"name: {name}") if "name: emoji" in JOB else f"name: {name}\n{JOB}")
    line = refusal(file)
    assert line.startswith("name: must be text, not ")
    assert line.endswith("; put it in quotes")


def test_a_path_on_the_command_line_may_hold_a_hash(file: Path) -> None:
    assert load_job(file, ["output.path=exp #7"]).output.path == str(file.parent / "exp #7")


def test_empty_sections_are_their_defaults(file: Path) -> None:
    file.write_text(JOB + "alignment:\nray:\n")
    assert load_job(file).alignment.method == "auto"


def test_the_dump_reads_back_as_the_same_job(file: Path) -> None:
    job = load_job(file)
    text = dump_job(job)
    assert parse_job(yaml.safe_load(text)) == job
    assert "regularization: auto" in text
    assert "max_bad_fraction: 0.5" in text


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("corpus.pth=x", "corpus.pth: unknown key; did you mean path?"),
        ("target=label", "target: unknown key; did you mean train.target?"),
        ("alignmnet.dim=3", "alignmnet: unknown key; did you mean alignment?"),
        ("inputs.image.encodr=x", "inputs.image.encodr: unknown key; did you mean encoder?"),
        ("train.zzz=1", "train.zzz: unknown key; nearest is target (known: target, task, head, split, group_by)"),
        ("alignment.from_=x", "alignment.from_: unknown key; did you mean from?"),
        ("alignment.dim=0", "alignment.dim: must be a whole number from 1 up, not 0"),
        ("alignment.dim=true", "alignment.dim: must be a whole number from 1 up, not true"),
        ("alignment.dim=1.5", "alignment.dim: must be a whole number from 1 up, not 1.5"),
        ("alignment.folds=1", "alignment.folds: must be a whole number from 2 up, not 1"),
        (
            "alignment.method=ccca",
            "alignment.method: 'ccca' is not one of none, pca, procrustes, joint, cca, kernel-cca, autoencoder, "
            "contrastive, auto; did you mean cca?",
        ),
        ("alignment.regularization=-1", "alignment.regularization: must be auto or a number from 0 up, not -1.0"),
        ("corpus=x", "corpus: must be a section (key: value lines), not 'x'"),
        ("corpus.path=", "corpus.path: must be text, not None"),
        ("corpus.keep=label", "corpus.keep: must be a list, e.g. [label]"),
        ("corpus.keep=[a, a]", "corpus.keep: 'a' is listed twice; remove one"),
        (
            "corpus.keep=[label, fused]",
            "corpus.keep: 'fused' is a column of the output; rename it in the corpus",
        ),
        (
            "corpus.keep=[label, aligned_text]",
            "corpus.keep: 'aligned_text' is a column of the output; rename it in the corpus",
        ),
        (
            "corpus.key=has_text",
            "corpus.key: 'has_text' is a column of the output; rename it in the corpus",
        ),
        (
            "corpus.keep=[label, key]",
            "corpus.keep: 'key' is reserved by readers of the output; rename it in the corpus",
        ),
        (
            "corpus.key=__filename",
            "corpus.key: '__filename' is reserved by readers of the output; rename it in the corpus",
        ),
        (
            "corpus.keep=[label, __misfits__]",
            "corpus.keep: '__misfits__' is reserved while rows are read; rename it in the corpus",
        ),
        (
            "inputs.text.column=__keys__",
            "inputs.text.column: '__keys__' is reserved while rows are read; rename it in the corpus",
        ),
        (
            'corpus.keep=[label, "a\\0b"]',
            "corpus.keep: 'a\\x00b' holds a NUL character, which cuts names off in readers; rename it in the corpus",
        ),
        (
            "corpus.keep=[label, Label]",
            "corpus.keep: 'label' and 'Label' differ only by case, and DuckDB renames one; rename it in the corpus",
        ),
        (
            "corpus.keep=[label, ID]",
            "corpus.keep: 'id' and 'ID' differ only by case, and DuckDB renames one; rename it in the corpus",
        ),
        (
            "train.group_by=fused",
            "train.group_by: 'fused' is a column of the output; rename it in the corpus",
        ),
        (
            "output.partition_by=[id]",
            "output.partition_by: 'id' is the key: every row would be a folder of its own; remove it",
        ),
        ("inputs={}", "inputs: at least one input is needed; add one"),
        (
            "inputs={my text: {kind: text, column: t, encoder: e}}",
            "inputs.my text: an input's name has letters, digits and _ only and does not begin with a digit; rename it",
        ),
        (
            "inputs={concat: {kind: text, column: t, encoder: e}}",
            "inputs.concat: concat is the name of a row in the report; choose another name",
        ),
        ("inputs.image.kind=img", "inputs.image.kind: 'img' is not one of text, image, vector; did you mean image?"),
        ("inputs.image.encoder=null", "inputs.image.encoder: an image input needs one"),
        (
            "inputs.image.kind=vector",
            "inputs.image.encoder: a vector input is passed through and has none; remove it",
        ),
        (
            "inputs.image.column=[a, b]",
            "inputs.image.column: only text inputs join several columns; give the image input one",
        ),
        ("inputs.text.column=[]", "inputs.text.column: must not be empty"),
        ("inputs.text.weights=w.pth", "inputs.text.weights: builtin/hashing has no weights; remove it"),
        ("inputs.text.preprocessing={crop: 2}", "inputs.text.preprocessing: only image inputs have it; remove it"),
        (
            "inputs.image.preprocessing={mean: [0, 0]}",
            "inputs.image.preprocessing.mean: must be a list of 3, not [0, 0]",
        ),
        ("inputs.image.batch=0", "inputs.image.batch: must be auto or a whole number from 1 up, not 0"),
        ("inputs.image.trust_remote_code=ja", "inputs.image.trust_remote_code: must be true or false, not 'ja'"),
        (
            "inputs={text: {kind: text, column: t, encoder: e}} alignment.method=cca",
            "alignment.method: cca needs at least two inputs; use pca, joint or none",
        ),
        (
            "inputs={text: {kind: text, column: t, encoder: e}} average.method=posterior",
            "average.method: posterior needs at least two inputs; use mean",
        ),
        ("average.weights={txt: 1}", "average.weights.txt: no such input; the inputs are text, image"),
        ("average.weights={text: -1}", "average.weights.text: must be a number from 0 up, not -1.0"),
        (
            "average={method: weighted, weights: {text: 0, image: 0}}",
            "average.weights: weighted needs at least one weight above 0; raise one",
        ),
        ("on_bad_input=drp", "on_bad_input: 'drp' is not one of keep, drop, fail; did you mean drop?"),
        ("limits.formats=[EPS]", f"limits.formats: 'EPS' is not one of {FORMATS}"),
        ("limits.max_bad_fraction=2", "limits.max_bad_fraction: must be at most 1.0, not 2.0"),
        ("limits.deadline=0h", "limits.deadline: must be a length of time such as 6h, 90m or 1h30m, not '0h'"),
        ("limits.deadline=60", "limits.deadline: must be a length of time such as 6h, 90m or 1h30m, not '60'"),
        ("limits.deadline=1.5h", "limits.deadline: must be a length of time such as 6h, 90m or 1h30m, not '1.5h'"),
        (
            "storage.endpoint_url=localhost:9000",
            "storage.endpoint_url: must begin with http:// or https://, not 'localhost:9000'",
        ),
        ("ray.address=somewhere", "ray.address: must be local, auto, host:port or none, not 'somewhere'"),
        ("ray.address=None", "ray.address: must be local, auto, host:port or none, not 'None'"),
        ("ray.address=null", "ray.address: is empty; leave it out, or write none for a run without Ray"),
        ("ray.workers=0", "ray.workers: must be auto, a whole number from 1 up or {min: 1, max: 8}, not 0"),
        ("ray.workers={max: 0}", "ray.workers.max: must be a whole number from 1 up, not 0"),
        ("ray.workers={min: 3, max: 2}", "ray.workers: min is 3 and max is 2; min must not be above max"),
        ("ray.workers={min: 3}", "ray.workers.max: is missing; the job file needs it"),
        ("ray.workers={maxx: 3, max: 3}", "ray.workers.maxx: unknown key; did you mean max?"),
        ("ray.start_timeout=0", "ray.start_timeout: must be a number of seconds above 0, not 0.0"),
        ("seed=-1", "seed: must be a whole number from 0 up, not -1"),
        ("limits.http=1", "limits.http: must be true or false, not 1"),
        (
            'corpus.keep=["a", b] c',
            "corpus.keep: the value '[\"a\", b] c' is not YAML (--set, line 1, column 10: expected "
            "'<document start>', but found '<scalar>')",
        ),
        ("dim", "--set: 'dim' is not of the form key.path=value"),
        ("a..b=1", "--set: 'a..b=1' is not of the form key.path=value"),
        ("corpus.path.x=1", "corpus.path.x: corpus.path is 'rows.jsonl', which has no keys below it"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(file: Path, override: str, line: str) -> None:
    first, _, second = override.partition("} alignment")
    overrides = [first + "}", "alignment" + second] if second else [override]
    first, _, second = override.partition("} average")
    overrides = [first + "}", "average" + second] if second else overrides
    assert refusal(file, *overrides, *(["train=null"] if "corpus.keep" in override else [])) == line


@pytest.mark.parametrize(
    "override",
    [
        "storage.endpoint_url=https://user:hush@host",
        "storage.endpoint_url=user:hush@host",
        "corpus.path=s3://key:hush@bucket/rows.jsonl",
        "corpus.path=https://host/rows.parquet?X-Amz-Signature=hush",
        "output.path=s3://hush@bucket/out",
        "output.reuse=[s3://key:hush@bucket/other]",
        "alignment.from=s3://key:hush@bucket/other",
        "inputs.image.weights=https://host/a.safetensors?se=2030&sig=hush",
        "inputs.text.encoder=https://user:hush@host/v1#model",
        "ray.address=ray://user:hush@head:10001",
        "limits.http=https://user:hush@host",
        "storage={key: hush}",
        "storage.secret=hush",
    ],
)
def test_a_secret_in_the_job_is_refused_and_shown_nowhere(file: Path, override: str) -> None:
    line = refusal(file, override)
    assert line.startswith(override.partition("=")[0].partition("[")[0])
    assert "hush" not in line
    with pytest.raises(ValidationError) as raised:
        Job.model_validate({**yaml.safe_load(JOB), "storage": {"endpoint_url": "https://user:hush@host"}})
    assert "hush" not in str(raised.value)


def test_names_with_an_at_sign_are_no_secrets(file: Path) -> None:
    job = load_job(file, ["corpus.path=s3://bucket/a@b/rows.jsonl", "output.path=out@home", "name=a?sig=b"])
    assert (job.corpus.path, job.name) == ("s3://bucket/a@b/rows.jsonl", "a?sig=b")
    assert job.output.path == str(file.parent / "out@home")


def test_several_mistakes_are_reported_together(file: Path) -> None:
    line = refusal(file, "corpus.pth=x", "alignment.dim=0", "ray.workers=0")
    assert line == "corpus.pth: unknown key; did you mean path? (also wrong: alignment.dim, ray.workers)"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("corpus:\n  path: a\n  path: b\n", "job.yaml, line 3, column 3: duplicate key 'path'"),
        ("corpus: [a\ninputs: b\n", "job.yaml, line 2, column 7: expected ',' or ']', but got ':'"),
        ("a: *x", "job.yaml, line 1, column 4: found undefined alias 'x'"),
        ("- a", "job.yaml must hold key: value lines, not ['a']"),
        ("{}", "corpus: is missing; the job file needs it (also wrong: inputs, output)"),
    ],
)
def test_what_is_no_job_file_says_where(file: Path, text: str, line: str) -> None:
    file.write_text(text)
    assert refusal(file) == line


def test_yaml_runs_no_code(file: Path) -> None:
    file.write_text("!!python/object/apply:os.getcwd []")
    assert "could not determine a constructor" in refusal(file)


def test_missing_empty_and_binary_files(tmp_path: Path) -> None:
    absent, empty, binary = tmp_path / "no.yaml", tmp_path / "empty.yaml", tmp_path / "binary.yaml"
    empty.write_text("# nothing\n")
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(absent) == f"no such job file: {absent}; correct the path, or write one with `barycenter init`"
    assert refusal(empty) == f"the job file {empty} is empty; `barycenter init` writes one"
    assert refusal(binary) == f"cannot read the job file {binary}: it is not UTF-8 text"
    assert refusal(tmp_path) == f"cannot read the job file {tmp_path}: Is a directory"


def test_parse_job_leaves_paths_alone() -> None:
    job = parse_job(yaml.safe_load(JOB))
    assert isinstance(job, Job)
    assert job.corpus.path == "rows.jsonl"
