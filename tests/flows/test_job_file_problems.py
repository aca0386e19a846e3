"""`barycenter init` where something is odd: what it says, what it leaves alone, what it asks."""

import json

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.job.json_schema import job_schema
from barycenter.infra.job.loader import load_job
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import text_and_vector_rows, write_lines
from tests.flows.proposals import ROWS, caption, checked, initializer, picture, summary, write, write_table


@pytest.fixture
def init(tmp_path, monkeypatch):
    return initializer(tmp_path, monkeypatch)


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
        rows = [
            row | {"code": f"c{n}", "mood": f"m{n % 2}", "weight": n + 0.25, "always": 1}
            for n, row in enumerate(text_and_vector_rows(ROWS))
        ]
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

    def test_a_target_that_is_not_proposed_is_an_answer(self, asked):
        result, job = asked("\n\nweight\n")
        assert "column to predict (label, mood, none, or any other column) [label]:" in result.stderr
        assert job.train.target == "weight"
        assert "weight" in job.corpus.keep

    def test_a_column_that_cannot_be_the_target_is_refused_with_the_reason(self, asked):
        result, job = asked("text\n\nwait\nid\ntext\nalways\nvec\nweight\n")
        assert job.train.target == "weight"
        lines = result.stderr.splitlines()
        for line in (
            "`wait` is no column; there are id, text, vec, label, code, mood, weight, always",
            "`id` is the key",
            "`text` is read by the input text; leave that input out to predict it",
            f"`always` has one value in {ROWS} rows read, so there is nothing to learn",
            "`vec` is list<item: double>; lists of labels are lists of text or of whole numbers",
        ):
            assert any(line in each for each in lines), (line, lines)

    def test_a_key_that_repeats_is_asked_for_and_explained(self, tmp_path, init, monkeypatch):
        monkeypatch.setattr("barycenter.flows.commands.job_files._is_terminal", lambda: True)
        rows = [row | {"id": f"r{n // 2}"} for n, row in enumerate(text_and_vector_rows(ROWS))]
        write_lines(tmp_path / "pairs.jsonl", rows)
        result = CliRunner().invoke(app, ["init", "pairs.jsonl"], input="\n\n\n")
        assert f"  id: values repeat: {ROWS // 2} different ones in {ROWS} rows read" in result.stderr
        assert "key column (id, none) [none]:" in result.stderr
        assert "rows are named by file and number; id: values repeat" in result.stdout
        assert checked(tmp_path / "barycenter.yaml").corpus.key is None
        result = CliRunner().invoke(app, ["init", "pairs.jsonl", "--out", "keyed.yaml"], input="\nid\n\n")
        assert checked(tmp_path / "keyed.yaml").corpus.key == "id"
        assert "of rows with one key the first counts" in (tmp_path / "keyed.yaml").read_text()

    def test_nothing_is_asked_with_yes(self, asked):
        result, _ = asked("", "--yes")
        assert "[" not in result.stderr
