import pytest
from prefect.context import FlowRunContext

from barycenter.flows import parameters, stages
from barycenter.flows.downstream import downstream
from barycenter.flows.parameters import job_of, run_name
from barycenter.flows.pipeline import pipeline
from barycenter.fusion.errors import JobError
from barycenter.infra.job.deployment import DeploymentParametersJob
from barycenter.infra.job.models import Job
from barycenter.tasks.run.context import NO_FLAGS, Flags
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, undescribed, write_job, write_lines


@pytest.fixture
def data(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(5))
    return text_and_vector_job(corpus, tmp_path / "out", "named")


def test_a_job_is_itself_with_paths_from_the_working_directory(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data["corpus"]["path"] = "rows.jsonl"
    assert job_of(Job.model_validate(data)).corpus.path == str(tmp_path / "rows.jsonl")


def test_the_order_of_inputs_may_be_given_beside_the_job(data):
    job = Job.model_validate(data)
    assert list(job_of(job, ["vec", "text"]).inputs) == ["vec", "text"]
    for wrong in (["vec"], ["vec", "text", "text"], ["vec", "texts"]):
        with pytest.raises(JobError, match="input_order: must name each input once: text, vec"):
            job_of(job, wrong)


def test_a_path_is_read(data, tmp_path):
    assert job_of(str(write_job(tmp_path / "job.yaml", data))).name == "named"


def test_demo_writes_its_corpus_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parameters, "_DEMO_FOLDER", tmp_path / "d")
    real = parameters.write_demo_corpus
    monkeypatch.setattr(parameters, "write_demo_corpus", lambda folder: real(folder, rows=5))
    job = job_of("demo")
    assert job.corpus.path == str(tmp_path / "d" / "corpus" / "metadata.jsonl")
    assert (tmp_path / "d" / "corpus" / "metadata.jsonl").is_file()


@pytest.mark.parametrize("given", ["nowhere.yaml", " "])
def test_nothing_there_is_reported(given):
    with pytest.raises(JobError, match=r"no such job file|is empty"):
        job_of(given)


@pytest.mark.parametrize(
    ("kind", "expected"), [("job", "embed named"), ("path", "embed named"), ("lost", "embed lost")]
)
def test_runs_are_named_by_their_job(data, tmp_path, monkeypatch, kind, expected):
    path = write_job(tmp_path / "job.yaml", data)
    given = {"job": Job.model_validate(data), "path": str(path), "lost": "lost"}[kind]
    context = FlowRunContext.model_construct(parameters={"job": given})
    monkeypatch.setattr(FlowRunContext, "get", classmethod(lambda cls: context))
    assert run_name("embed")() == expected


def test_the_form_of_the_ui_shows_every_section_with_its_words():
    schema = pipeline.parameters.model_dump()
    definitions = schema["definitions"]
    assert set(Job.model_fields) <= set(definitions["Job"]["properties"])
    assert definitions["CorpusJob"]["properties"]["rows_per_shard"]["description"] == "Rows in one unit of work."
    assert definitions["Job"]["properties"]["on_bad_input"]["enum"] == ["keep", "drop", "fail"]
    assert ">>>" not in definitions["Job"]["description"]
    assert {"type": "string"} in schema["properties"]["job"]["anyOf"]


FLOWS = [pipeline, downstream, stages.embed, stages.align, stages.fuse, stages.train, stages.report]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_of_every_form_has_a_title_and_a_description(flow):
    schema = flow.parameters.model_dump()
    assert undescribed(schema) == []
    assert [name for name, part in schema["definitions"].items() if not part.get("description")] == []


def test_a_form_without_titles_or_descriptions_is_noticed():
    schema = {"properties": {"a": {"title": "A"}}, "definitions": {"B": {"properties": {"c": {"description": "d"}}}}}
    assert undescribed(schema) == [".a", "B.c"]


@pytest.mark.usefixtures("prefect_server")
def test_a_form_left_at_its_defaults_runs(tmp_path, monkeypatch):
    corpus, job = parameters.write_demo_corpus, parameters.demo_job
    monkeypatch.setattr(parameters, "_DEMO_FOLDER", tmp_path)
    monkeypatch.setattr(parameters, "write_demo_corpus", lambda folder: corpus(folder, rows=60))
    monkeypatch.setattr(parameters, "demo_job", lambda *paths: job(*paths) | {"ray": {"address": "none"}})
    assert {name: figures["rows"] for name, figures in stages.embed().items()} == {"embed text": 60, "embed image": 60}


def test_a_deployment_may_ask_for_what_the_flow_takes():
    taken = set(pipeline.parameters.properties) - {"job", "input_order"}
    assert set(DeploymentParametersJob.model_fields) == taken == set(NO_FLAGS) == set(Flags.__annotations__)
