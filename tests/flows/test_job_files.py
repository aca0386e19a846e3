"""`barycenter init` on corpora as people have them: what it proposes, and that its job file runs."""

import io
import json
import tarfile
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.job.json_schema import job_schema
from barycenter.infra.job.loader import load_job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import run_here, text_and_vector_rows, write_lines
from tests.flows.proposals import (
    ROWS,
    caption,
    checked,
    initializer,
    picture,
    summary,
    write,
    write_parquet,
    write_table,
)


@pytest.fixture
def init(tmp_path, monkeypatch):
    return initializer(tmp_path, monkeypatch)


def ran(path, *overrides):
    """The report of the whole job, in this process."""
    job = load_job(path, ["ray.address=none", *overrides])
    return run_here(job.model_dump(mode="json", by_alias=True, exclude_unset=True))


QUICK = ("alignment.method=joint", "alignment.regularization=1", "alignment.folds=2")


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


def test_a_corpus_of_one_row_is_said_to_be_too_few(tmp_path, init):
    write_lines(tmp_path / "one.jsonl", [{"id": "a", "text": caption(1)}])
    result = init("one.jsonl")
    assert "the corpus has one row; an alignment needs at least two" in " ".join(result.stderr.split())
    written = (tmp_path / "barycenter.yaml").read_text()
    assert "1 row is soon done in one process" in written
    assert "no value is empty or repeats in 1 row\n" in written
    assert "1 rows" not in written + result.stdout


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
    assert summary(job) == ("file", inputs, ("species", None))
    why = "no value is empty or repeats in 40 rows; each is the name of a picture"
    assert f"key: file  # {why}" in (tmp_path / "barycenter.yaml").read_text()
    assert "files beside the table, read where a row names them: 40" in result.stderr


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
    assert "# no key: such a corpus brings a key of its own, __key__, unless another is named" in text
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
