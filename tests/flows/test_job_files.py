"""`barycenter init` on corpora as people have them: what it proposes, and that its job file runs."""

import csv
import io
import json
import re
import tarfile
from importlib.metadata import version

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.job.json_schema import job_schema
from barycenter.infra.job.loader import load_job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import WORDS, run_here, text_and_vector_rows, write_lines

ROWS = 40
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))
PROPOSED = re.compile(r"^( *)#(\w+: .*)$")


def picture(row):
    noise = np.random.default_rng(row).integers(-25, 25, (12, 12, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(COLORS[row % 3] + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def caption(row):
    return " ".join([*WORDS[4 * (row % 3) : 4 * (row % 3) + 2], *np.random.default_rng(row).choice(WORDS, 3)])


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_table(path, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def init(tmp_path, monkeypatch):
    """Calls the command in a folder of its own, without a hub's cache; returns what came of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))

    def call(*arguments, code=0):
        result = CliRunner().invoke(app, ["init", *map(str, arguments)])
        assert result.exit_code == code, (result.exit_code, result.output)
        return result

    return call


def uncommented(text, number=None):
    """A job file with one of its proposals, or all of them, taken."""
    lines = text.splitlines()
    places = [place for place, line in enumerate(lines) if PROPOSED.match(line)]
    for place in places if number is None else places[number : number + 1]:
        lines[place] = PROPOSED.sub(r"\1\2", lines[place])
    return "\n".join(lines) + "\n", len(places)


def checked(path):
    """The job of a file, prepared; each of its proposals, and all of them together, are valid too."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=barycenter.schema.json\n")
    other = path.with_name("other.yaml")
    changed = [uncommented(text, number)[0] for number in range(uncommented(text)[1])]
    for variant in [text, *changed, uncommented(text)[0]]:
        other.write_text(variant, encoding="utf-8")
        job = load_job(other)
        jsonschema.validate(yaml.safe_load(variant), job_schema(), jsonschema.Draft202012Validator)
    prepare(job)
    other.unlink()
    job = load_job(path)
    prepare(job)
    return job


def ran(path, *overrides):
    """The report of the whole job, in this process."""
    job = load_job(path, ["ray.address=none", *overrides])
    return run_here(job.model_dump(mode="json", by_alias=True, exclude_unset=True))


QUICK = ("alignment.method=joint", "alignment.regularization=1", "alignment.folds=2")


def summary(job):
    """What a job file says of the columns."""
    inputs = {name: (part.kind, part.column) for name, part in job.inputs.items()}
    train = None if job.train is None else (job.train.target, job.train.split)
    return job.corpus.key, inputs, train


def test_json_lines(tmp_path, init):
    write_lines(tmp_path / "pairs.jsonl", text_and_vector_rows(ROWS))
    result = init("pairs.jsonl")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == ("id", {"text": ("text", "text"), "vec": ("vector", "vec")}, ("label", None))
    assert (job.name, job.output.path) == ("pairs", str(tmp_path / "out" / "pairs"))
    assert "key       id: no value is empty or repeats in 40 rows" in result.stdout
    assert result.stderr == ""
    report = ran(tmp_path / "barycenter.yaml")
    assert (report["rows"]["written"], report["head"]["task"]) == (ROWS, "classification")


def test_csv_of_a_shop(tmp_path, init):
    rows = [
        {
            "sku": f"a-{row:04d}", "title": caption(row), "description": f"It is {caption(row + 1)} for every day.",
            "photo": f"{row}.png", "price": f"{3 * (row % 3) + row / 100 + 1:.2f}",
        }
        for row in range(ROWS)
    ]  # fmt: skip
    write_table(tmp_path / "shop" / "products.csv", rows)
    for row in range(ROWS):
        write(tmp_path / "shop" / "images" / f"{row}.png", picture(row))
    init("shop/products.csv")
    job = checked(tmp_path / "barycenter.yaml")
    inputs = {"text": ("text", ["title", "description"]), "image": ("image", "photo")}
    assert summary(job) == ("sku", inputs, ("price", None))
    assert "regression: numbers with fractions" in (tmp_path / "barycenter.yaml").read_text()
    assert ran(tmp_path / "barycenter.yaml", *QUICK)["head"]["task"] == "regression"


def test_tsv_of_questions_and_answers(tmp_path, init):
    rows = [{"question": f"Where is {caption(row)}?", "answer": f"Near {caption(row + 3)}."} for row in range(ROWS)]
    write_table(tmp_path / "pairs.tsv", rows, "\t")
    init("pairs.tsv")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == (None, {"question": ("text", "question"), "answer": ("text", "answer")}, None)


def test_parquet(tmp_path, init):
    rows = [
        {"product_id": row, "name": caption(row), "new": row % 2 == 0, "image": picture(row)} for row in range(ROWS)
    ]
    write_parquet(tmp_path / "data" / "products.parquet", rows)
    init("data/products.parquet")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == ("product_id", {"text": ("text", "name"), "image": ("image", "image")}, None)
    assert "#train: {target: new}  # classification: true or false" in (tmp_path / "barycenter.yaml").read_text()


def test_hive_partitioned_parquet(tmp_path, init):
    for row, part in enumerate(("a", "b", "c")):
        rows = [{"id": f"{part}{n}", "text": caption(3 * n + row), "emb": [n + row / 2, 2.0, n / 7]} for n in range(12)]
        write_parquet(tmp_path / "lake" / f"category={part}" / "part-0.parquet", rows)
    init("lake")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == ("id", {"text": ("text", "text"), "emb": ("vector", "emb")}, ("category", None))


def test_folder_of_pictures_whose_subfolders_are_labels(tmp_path, init):
    for row in range(ROWS):
        write(tmp_path / "photos" / ("red", "green", "blue")[row % 3] / f"{row}.png", picture(row))
    result = init("photos")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == (None, {"image": ("image", "image")}, ("label", None))
    assert "there is one input only (image)" in result.stderr
    report = ran(tmp_path / "barycenter.yaml", *QUICK)
    assert report["rows"]["written"] == ROWS
    assert report["head"]["score"] > 0.9


def test_folder_of_pictures_with_a_csv_beside(tmp_path, init):
    rows = [{"file": f"{row}.png", "caption": caption(row), "species": f"s{row % 3}"} for row in range(ROWS)]
    write_table(tmp_path / "zoo" / "labels.csv", rows)
    for row in range(ROWS):
        write(tmp_path / "zoo" / f"{row}.png", picture(row))
    result = init("zoo")
    job = checked(tmp_path / "barycenter.yaml")
    inputs = {"text": ("text", "caption"), "image": ("image", "file")}
    assert summary(job) == (None, inputs, ("species", None))
    assert "  #key: file  # no value is empty or repeats in 40 rows" in (tmp_path / "barycenter.yaml").read_text()
    assert "files passed over: 40 picture_beside_table" in result.stderr


def test_webdataset(tmp_path, init):
    path = tmp_path / "shards" / "train-0000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for row in range(ROWS):
            about = json.dumps({"width": 12, "author": f"a{row % 5}"}).encode()
            members = {"jpg": picture(row), "txt": caption(row).encode(), "cls": str(row % 3).encode(), "json": about}
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{row:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    init(path)
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == (None, {"text": ("text", "text"), "image": ("image", "image")}, ("cls", None))
    text = (tmp_path / "barycenter.yaml").read_text()
    assert "# no key: __key__ is the key of such a corpus unless another is named" in text
    assert "#group_by: author" in text
    assert job.corpus.path == str(path)
    assert ran(tmp_path / "barycenter.yaml", *QUICK)["rows"]["written"] == ROWS


def test_hugging_face_parquet_of_image_structs(tmp_path, init):
    rows = [
        {
            "image": {"bytes": picture(row), "path": f"{row}.png"},
            "label": row % 3,
            "captions": [caption(row), caption(row + 3)],
        }
        for row in range(ROWS)
    ]
    write_parquet(tmp_path / "food" / "train-00000-of-00001.parquet", rows)
    init("food")
    job = checked(tmp_path / "barycenter.yaml")
    inputs = {"text": ("text", "captions"), "image": ("image", "image")}
    assert summary(job) == (None, inputs, ("label", None))
    assert job.name == "food"


def test_vectors_in_parquet(tmp_path, init):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(ROWS, 9)).astype(np.float32), rng.normal(size=(ROWS, 12))
    table = pa.table({
        "key": [f"k{row}" for row in range(ROWS)], "left side": pa.FixedSizeListArray.from_arrays(left.ravel(), 9),
        "right": list(right), "box": [[0.0, 1.0, 2.0, 3.0]] * ROWS,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "vectors.parquet")
    init("vectors.parquet")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == ("key", {"left_side": ("vector", "left side"), "right": ("vector", "right")}, None)
    assert ran(tmp_path / "barycenter.yaml", *QUICK)["rows"]["written"] == ROWS


def test_table_with_a_split_column(tmp_path, init):
    splits = ("train", "train", "train", "validation", "test")
    rows = [row | {"split": splits[n % 5], "part": "train"} for n, row in enumerate(text_and_vector_rows(ROWS))]
    write_lines(tmp_path / "pairs.jsonl", rows)
    init("pairs.jsonl")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job)[2] == ("label", "split")
    assert "  split: split  # holds 'test', 'train', 'validation'" in (tmp_path / "barycenter.yaml").read_text()


def test_a_split_without_test_rows_is_not_taken(tmp_path, init):
    rows = [row | {"split": ("train", "dev")[n % 2]} for n, row in enumerate(text_and_vector_rows(ROWS))]
    write_lines(tmp_path / "pairs.jsonl", rows)
    result = init("pairs.jsonl")
    assert summary(checked(tmp_path / "barycenter.yaml"))[2] == ("label", None)
    assert "  #split: split  # holds 'dev', 'train'" in (tmp_path / "barycenter.yaml").read_text()
    assert "no row read has a `split` of 'test' (but 'dev', 'train'); a head would not be scored by it" in result.stderr


def test_table_whose_ids_repeat(tmp_path, init):
    rows = [row | {"id": f"photo {n // 3}"} for n, row in enumerate(text_and_vector_rows(ROWS))]
    write_lines(tmp_path / "pairs.jsonl", rows)
    init("pairs.jsonl")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job)[0] is None
    text = (tmp_path / "barycenter.yaml").read_text()
    assert "#key: id  # values repeat: 14 different ones in 40 rows read; of rows with one key the first counts" in text
    assert "#group_by: id  # 14 different values in 40 rows read" in text


def test_text_only(tmp_path, init):
    write_table(tmp_path / "tweets.csv", [{"tweet": caption(row)} for row in range(ROWS)])
    result = init("tweets.csv")
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == (None, {"text": ("text", "tweet")}, None)
    assert "there is one input only (text)" in result.stderr
    assert ran(tmp_path / "barycenter.yaml", *QUICK)["rows"]["written"] == ROWS


def test_glob_of_files(tmp_path, init):
    for part in range(3):
        rows = text_and_vector_rows(20, first=20 * part)
        write_lines(tmp_path / "logs" / f"{part}.jsonl", rows)
    write_lines(tmp_path / "logs" / "other.txt", [])
    init("logs/*.jsonl", "--out", "jobs/mine.yaml")
    job = checked(tmp_path / "jobs" / "mine.yaml")
    assert "path: ../logs/*.jsonl" in (tmp_path / "jobs" / "mine.yaml").read_text()
    assert (job.name, job.output.path) == ("logs", str(tmp_path / "jobs" / "out" / "logs"))
    assert summary(job)[0] == "id"
    assert sum(source.rows for source in prepare(job).sources) == 60


def test_s3(tmp_path, init, s3_server, s3_bucket):
    import s3fs

    rows = [{"id": f"r{row}", "caption": caption(row), "image": f"p{row}.png"} for row in range(12)]
    write_lines(tmp_path / "corpus" / "rows.jsonl", rows)
    for row in range(12):
        write(tmp_path / "corpus" / f"p{row}.png", picture(row))
    remote = s3fs.S3FileSystem(endpoint_url=s3_server)
    remote.put(str(tmp_path / "corpus"), f"{s3_bucket}/corpus", recursive=True)
    init(f"s3://{s3_bucket}/corpus", "--endpoint-url", s3_server)
    job = checked(tmp_path / "barycenter.yaml")
    assert summary(job) == ("id", {"text": ("text", "caption"), "image": ("image", "image")}, None)
    assert (job.corpus.path, job.storage.endpoint_url) == (f"s3://{s3_bucket}/corpus", s3_server)


def test_what_is_there_is_never_overwritten(tmp_path, init):
    write_lines(tmp_path / "pairs.jsonl", text_and_vector_rows(ROWS))
    write(tmp_path / "barycenter.yaml", b"mine")
    write(tmp_path / "barycenter.schema.json", b"{}")
    result = init("pairs.jsonl", code=2)
    assert "--out: barycenter.yaml is there already and is left alone; name another file" in result.stderr
    (tmp_path / "out" / "pairs").mkdir(parents=True)
    init("pairs.jsonl", "--out", "second.yaml")
    assert (tmp_path / "barycenter.yaml").read_bytes() == b"mine"
    assert (tmp_path / "barycenter.schema.json").read_bytes() == b"{}"
    assert load_job(tmp_path / "second.yaml").output.path == str(tmp_path / "out" / "pairs-2")


def test_the_schema_lies_beside_the_job_file(tmp_path, init):
    write_lines(tmp_path / "pairs.jsonl", text_and_vector_rows(ROWS))
    init("pairs.jsonl", "--out", "jobs/a.yaml")
    assert json.loads((tmp_path / "jobs" / "barycenter.schema.json").read_text()) == job_schema()


def test_an_output_is_never_inside_the_corpus(tmp_path, init, monkeypatch):
    for row in range(6):
        write(tmp_path / "photos" / "birds" / f"{row}.png", picture(row))
    monkeypatch.chdir(tmp_path / "photos")
    init(".")
    job = load_job(tmp_path / "photos" / "barycenter.yaml")
    assert (job.name, job.output.path) == ("photos", str(tmp_path / "out" / "photos"))
    prepare(job)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "there is no such file or folder"),
        ("a.doc", b"text", "a.doc is not of a known format"),
        ("a.csv", b"x,y\n1,2\n3,4\n", "no column holds texts of several words, pictures that can be read, or lists"),
        ("a.csv", b"id,text\n", "holds no rows"),
        ("a.jsonl", b'[{"a": 1}]', "is a JSON array"),
    ],
)
def test_a_corpus_that_is_none_is_refused_in_a_line(tmp_path, init, name, content, words):
    if content is not None:
        write(tmp_path / name, content)
    result = init(name, code=2)
    assert result.stderr.startswith("barycenter: PATH: ")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "barycenter.yaml").exists()


def test_pictures_that_are_elsewhere_are_named_with_what_to_do(tmp_path, init):
    rows = [{"photo": f"{row}.png", "caption": caption(row)} for row in range(ROWS)]
    write_table(tmp_path / "zoo" / "tables" / "rows.csv", rows)
    result = init("zoo/tables/rows.csv")
    assert "no picture of `photo` could be read: 0.png is neither in" in result.stderr
    assert "put the pictures there, or write paths from the table's folder into `photo`" in result.stderr
    write(tmp_path / "zoo" / "tables" / "shots" / "0.png", picture(0))
    result = init("zoo/tables/rows.csv", "--out", "second.yaml")
    assert "write paths from the table's folder into `photo`, such as shots/0.png\n" in result.stderr
    (tmp_path / "zoo" / "tables" / "shots").rename(tmp_path / "zoo" / "shots")
    result = init("zoo/tables/rows.csv", "--out", "third.yaml")
    assert "such as ../shots/0.png, and set limits.outside_corpus to true\n" in result.stderr
    assert list(checked(tmp_path / "third.yaml").inputs) == ["text"]


def test_limits_are_widened_only_where_the_pictures_need_it(tmp_path, init):
    write(tmp_path / "shots" / "a.png", picture(0))
    write_table(tmp_path / "tables" / "rows.csv", [{"photo": "../shots/a.png"} for _ in range(6)])
    init("tables/rows.csv")
    job = checked(tmp_path / "barycenter.yaml")
    assert (job.limits.outside_corpus, job.limits.http) == (True, False)
    text = (tmp_path / "barycenter.yaml").read_text()
    assert "outside_corpus: true  # the pictures of photo lie outside the corpus folder" in text


def test_pictures_of_the_web_are_not_fetched(tmp_path, init):
    write_table(
        tmp_path / "rows.csv", [{"text": caption(row), "web": f"https://a.example/{row}.jpg"} for row in range(6)]
    )
    init("rows.csv")
    job = load_job(tmp_path / "barycenter.yaml")
    assert (job.limits.outside_corpus, job.limits.http, list(job.inputs)) == (False, True, ["text", "image"])
    text = (tmp_path / "barycenter.yaml").read_text()
    assert "column: web  # http(s) addresses; none was tried" in text
    assert "http: true  # web holds http(s) addresses, fetched while embedding" in text


def test_a_folder_of_links_out_of_it(tmp_path, init):
    write(tmp_path / "store" / "a.png", picture(0))
    (tmp_path / "photos").mkdir()
    for row in range(3):
        (tmp_path / "photos" / f"{row}.png").symlink_to(tmp_path / "store" / "a.png")
    init("photos")
    assert checked(tmp_path / "barycenter.yaml").limits.outside_corpus


def test_vectors_written_as_text_are_pointed_out(tmp_path, init):
    rows = [{"text": caption(row), "emb": f"[{row}.5, 1e-3, -2, 0.25]", "emb2": f"{row} 1 2 3"} for row in range(6)]
    write_table(tmp_path / "a.csv", rows)
    result = init("a.csv")
    for name in ("emb", "emb2"):
        assert f"`{name}` holds vectors written as text; write the table as Parquet or JSON Lines" in result.stderr
    assert list(checked(tmp_path / "barycenter.yaml").inputs) == ["text"]


def test_names_of_columns_that_yaml_would_misread(tmp_path, init):
    names = ["a: b", "#c", "l'été", "new\nline", " lead", "yes", "- d", "{e}", "\u202e%"]
    rows = [
        {"12": row, "text, or so": caption(row)} | {f"{name} category": f"v{row % 3}" for name in names}
        for row in range(ROWS)
    ]
    write_lines(tmp_path / "odd: names #1" / "a.jsonl", rows)
    init("odd: names #1/a.jsonl")
    job = checked(tmp_path / "barycenter.yaml")
    assert job.inputs["text"].column == "text, or so"
    assert job.corpus.keep == [f"{name} category" for name in names]
    assert job.corpus.path == str(tmp_path / "odd: names #1" / "a.jsonl")


def test_columns_that_the_output_cannot_keep_are_left_out(tmp_path, init):
    rows = [
        {"id": f"k{n}", "text": caption(n), "has_text": f"v{n % 2}", "label": n % 3, "LABEL": n % 3}
        for n in range(ROWS)
    ]
    write_lines(tmp_path / "a.jsonl", rows)
    init("a.jsonl")
    assert checked(tmp_path / "barycenter.yaml").corpus.keep == ["label"]


class TestQuestions:
    @pytest.fixture
    def asked(self, tmp_path, init, monkeypatch):
        """Calls the command as on a terminal, with answers."""
        monkeypatch.setattr("barycenter.flows.commands.job_files._is_terminal", lambda: True)
        rows = [row | {"code": f"c{n}", "mood": f"m{n % 2}"} for n, row in enumerate(text_and_vector_rows(ROWS))]
        write_lines(tmp_path / "pairs.jsonl", rows)

        def call(answers, *arguments):
            result = CliRunner().invoke(app, ["init", "pairs.jsonl", *arguments], input=answers)
            assert result.exit_code == 0, result.output
            return result, checked(tmp_path / "barycenter.yaml")

        return call

    def test_empty_answers_take_what_is_proposed(self, asked):
        result, job = asked("\n\n\n")
        assert summary(job) == ("id", {"text": ("text", "text"), "vec": ("vector", "vec")}, ("label", None))
        assert "key column (id, code, none) [id]:" in result.stderr

    def test_answers_are_taken(self, asked):
        _, job = asked("text, vek\ntext\ncode\nmood\n")
        assert summary(job) == ("code", {"text": ("text", "text")}, ("mood", None))

    def test_none_is_an_answer(self, asked):
        _, job = asked("vec\nnone\nnone\n")
        assert summary(job) == (None, {"vec": ("vector", "vec")}, None)

    def test_nothing_is_asked_with_yes(self, asked):
        result, _ = asked("", "--yes")
        assert "[" not in result.stderr


def test_the_schema_is_printed():
    result = CliRunner().invoke(app, ["schema"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, job_schema())


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"barycenter {version('barycenter')}\n")


def test_shells_complete_commands():
    environment = {"_BARYCENTER_COMPLETE": "complete_bash", "COMP_WORDS": "barycenter ini", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], env=environment, prog_name="barycenter")
    assert result.stdout.split() == ["init"]
