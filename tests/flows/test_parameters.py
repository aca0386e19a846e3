import pytest
from prefect.context import FlowRunContext

from barycenter.flows import parameters, stages
from barycenter.flows.downstream import downstream
from barycenter.flows.parameters import job_of, run_name
from barycenter.flows.pipeline import pipeline
from barycenter.fusion.errors import JobError
from barycenter.infra.job.environment import DeploymentParametersJob
from barycenter.infra.job.models import Job
from barycenter.tasks.run.context import NO_FLAGS, Flags
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines


@pytest.fixture
def data(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(5))
    return text_and_vector_job(corpus, tmp_path / "out", "named")


def test_a_job_is_itself_with_paths_from_the_working_directory(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data["corpus"]["path"] = "rows.jsonl"
    assert job_of(Job.model_validate(data)).corpus.path == str(tmp_path / "rows.jsonl")


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
    parts = {flow.name: schema, **schema["definitions"]}
    fields = {f"{part}.{name}": field for part in parts for name, field in parts[part]["properties"].items()}
    assert len(fields) > 10
    assert [name for name, field in fields.items() if not (field.get("title") and field.get("description"))] == []
    assert [name for name, part in schema["definitions"].items() if not part.get("description")] == []


def test_a_deployment_may_ask_for_what_the_flow_takes():
    taken = set(pipeline.parameters.properties) - {"job"}
    assert set(DeploymentParametersJob.model_fields) == taken == set(NO_FLAGS) == set(Flags.__annotations__)
