"""A folder of job files as deployments on a real Prefect server: made, made again, pruned."""

import json
from secrets import token_hex

import httpx
import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import temporary_settings
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.flows.parameters import job_of
from barycenter.flows.pipeline import pipeline
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from tests.flows.corpora import undescribed
from tests.flows.deploying import deploy, deployment

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_five_files_again_and_again_without_doubles(folder, pool, client):
    machines, others = pool(), pool()
    for file in "abcd":
        folder.write(file)
    said = {"schedule": "0 2 * * *", "timezone": "Europe/Berlin", "tags": ["nightly"], "work_pool": others}
    said |= {"parameters": {"refit": True}, "job_variables": {"env": {"A": "1"}, "working_dir": "/srv"}}
    folder.write("e", deployment=said)
    (folder.path / "notes.txt").write_text("no job file")
    lines, notes = deploy(folder, "--work-pool", machines, "--tag", "ours")
    assert [line.split()[0] for line in lines] == ["created"] * 5
    assert f"created barycenter/{folder.name('a')}: a.yaml, when asked, work pool {machines}" in lines
    assert f"created barycenter/{folder.name('e')}: e.yaml, 0 2 * * * (Europe/Berlin), work pool {others}" in lines
    assert f"e.yaml: no worker is at work pool {others}; start one: `prefect worker start --pool {others}`" in notes

    first = {file: deployment(client, folder.name(file)) for file in "abcde"}
    plain, scheduled = first["a"], first["e"]
    job = load_job(folder.path / "a.yaml")
    kept = json.loads(json.dumps(plain.parameters, sort_keys=True))  # as PostgreSQL does
    assert job_of(Job.model_validate(kept["job"]), kept["input_order"]).fingerprint() == job.fingerprint()
    assert plain.version == job.fingerprint()
    assert set(kept) == {"job", "input_order"}
    assert undescribed(plain.parameter_openapi_schema) == []
    assert plain.schedules == []
    assert plain.global_concurrency_limit is None
    assert set(plain.tags) == {"barycenter", "ours", f"jobs:{folder.path}/a.yaml"}
    assert plain.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
    (plan,) = scheduled.schedules
    assert (plan.schedule.cron, plan.schedule.timezone, plan.active) == ("0 2 * * *", "Europe/Berlin", True)
    assert scheduled.parameters["refit"] is True
    assert "deployment" not in scheduled.parameters["job"]
    assert "nightly" in scheduled.tags
    assert scheduled.job_variables["working_dir"] == "/srv"
    assert scheduled.job_variables["env"] == {"A": "1"} | plain.job_variables["env"]

    lines, _ = deploy(folder, "--work-pool", machines, "--tag", "ours")
    assert [line.split()[0] for line in lines] == ["unchanged"] * 5
    folder.write("b", alignment={"dim": 4})
    folder.write("e")
    lines, _ = deploy(folder, "--work-pool", machines, "--tag", "ours")
    assert [line.split()[0] for line in lines] == ["unchanged", "updated", "unchanged", "unchanged", "updated"]
    now = {file: deployment(client, folder.name(file)) for file in "abcde"}
    assert [each.id for each in now.values()] == [each.id for each in first.values()]
    assert now["b"].parameters["job"]["alignment"]["dim"] == 4
    assert now["e"].schedules == []
    assert now["e"].work_pool_name == machines


def test_files_that_are_gone_and_renamed(folder, pool, client):
    machines = pool()
    folder.write("kept")
    folder.write("gone", deployment={"schedule": "0 2 * * *"})
    folder.write("moved")
    deploy(folder, "--work-pool", machines)
    (folder.path / "gone.yaml").unlink()
    (folder.path / "moved.yaml").rename(folder.path / "new.yaml")
    lines, _ = deploy(folder, "--work-pool", machines)
    assert lines[1:] == [
        f"updated barycenter/{folder.name('moved')}: new.yaml, before from moved.yaml, when asked, "
        f"work pool {machines}",
        f"stale barycenter/{folder.name('gone')}: no job file asks for it any more (it was gone.yaml), "
        "and it still runs by its schedule; --prune deletes it",
    ]
    lines, _ = deploy(folder, "--work-pool", machines, "--prune", "--dry-run")
    assert lines[-1].startswith(f"would be deleted barycenter/{folder.name('gone')}: ")
    assert deployment(client, folder.name("gone")).name == folder.name("gone")
    lines, _ = deploy(folder, "--work-pool", machines, "--prune")
    assert lines[-1].startswith(f"deleted barycenter/{folder.name('gone')}: ")
    with pytest.raises(ObjectNotFound):
        deployment(client, folder.name("gone"))
    assert len(deploy(folder, "--work-pool", machines)[0]) == 2


def test_everything_that_is_wrong_is_named_before_anything_is_deployed(folder, pool, client):
    machines = pool()
    folder.write("a")
    folder.write("b", alignment={"dimm": 4}, seed="x")
    folder.write("c", deployment={"schedule": "at night"})
    folder.write("d", deployment={"schedule": "0 2 * * *", "timezone": "Mars/Olympus"})
    folder.write("e", deployment={"work_pool": "nowhere"})
    folder.write("f", deployment={"job_variables": {"workingdir": "/srv", "env": {"A": 1}}})
    folder.write("g", name=folder.name("a"))
    folder.write("h", deployment={"tags": ["jobs:mine"], "parameters": {"as_of": 20240131}})
    (folder.path / "i.yml").write_text("a: [")
    lines, said = deploy(folder, "--work-pool", machines, code=2)
    assert lines == []
    assert said[-1] == "barycenter: 8 job files are wrong; nothing was deployed"
    starts = [
        "b.yaml: seed: must be a whole number",
        "c.yaml: deployment.schedule: 'at night' is no cron line",
        "d.yaml: deployment.timezone: 'Mars/Olympus' is no time zone such as Europe/Berlin",
        "e.yaml: deployment.work_pool: there is no work pool 'nowhere'",
        f"f.yaml: deployment.job_variables.workingdir: work pool {machines} (process) has no such variable; "
        "did you mean working_dir?",
        "f.yaml: deployment.job_variables.env.A: 1 is not of type 'string'",
        f"g.yaml: name: a.yaml has the same name, {folder.name('a')}; give each its own",
        "h.yaml: deployment.parameters.as_of: must be a date such as 2024-01-31",
        "i.yml: i.yml, line 1, column 5: ",
    ]
    for line, start in zip(said, starts, strict=False):
        assert line.startswith(f"barycenter: {start}"), (line, start)
    assert "also wrong: alignment.dimm" in said[0]
    with pytest.raises(ObjectNotFound):
        deployment(client, folder.name("a"))
    folder.write("h", deployment={"tags": ["jobs:mine"]})
    assert any("h.yaml: deployment.tags: 'jobs:mine' begins as" in line for line in deploy(folder, code=2)[1])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--schedule", "at night"], "--schedule: 'at night' is no cron line"),
        (["--timezone", "Mars"], "--timezone: 'Mars' is no time zone such as Europe/Berlin"),
        (["--tag", "jobs:mine"], "--tag: 'jobs:mine' begins as the tag that names the job file; choose another"),
    ],
)
def test_an_option_that_is_wrong_is_named_once_and_not_by_file(folder, flags, line):
    folder.write("a")
    folder.write("b")
    _, said = deploy(folder, *flags, code=2)
    assert len(said) == 1
    assert said[0].startswith(f"barycenter: {line}")


def test_a_dry_run_makes_nothing_on_the_server(folder, pool, client, monkeypatch):
    folder.write("a")
    machines, asked = pool(), []
    send = httpx.Client.send

    def note(self, request, **options):
        asked.append((request.method, request.url.path))
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", note)
    assert deploy(folder, "--work-pool", machines, "--dry-run")[0][0].startswith("would be created ")
    assert ("GET", "/api/health") in asked
    wrote = [(method, path) for method, path in asked if method != "GET" and not path.endswith("/filter")]
    assert wrote == []


def test_without_a_server_the_files_are_checked_all_the_same(folder, monkeypatch):
    monkeypatch.setattr("barycenter.flows.server.answers", lambda *_: False)
    folder.write("a", alignment={"dim": 0})
    _, said = deploy(folder, "--dry-run", code=2)
    assert said[0].startswith("barycenter: a.yaml: alignment.dim: ")
    assert said[1:] == ["barycenter: 1 job file is wrong; nothing was deployed"]
    folder.write("a")
    _, said = deploy(folder, "--dry-run", code=1)
    assert len(said) == 1
    assert said[0].startswith("barycenter: no Prefect server answers at ")


def test_folders_that_hold_no_jobs(folder, tmp_path):
    assert deploy(folder, code=2)[1] == [f"barycenter: {folder.path} holds no job file (.yaml, .yml)"]
    for path, line in ((tmp_path / "nowhere", "is not there"), (tmp_path / "rows.jsonl", "is a file; name its folder")):
        result = CliRunner().invoke(app, ["deploy", str(path)])
        assert (result.exit_code, result.stderr) == (2, f"barycenter: {path} {line}\n")


def test_no_server_is_one_line(folder, monkeypatch):
    from prefect.settings import PREFECT_API_URL

    folder.write("a")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        _, said = deploy(folder, code=1)
    assert said == [
        "barycenter: no Prefect server answers at http://127.0.0.1:9/api; start it with `prefect server start`, "
        "or set PREFECT_API_URL"
    ]


def test_serve_takes_what_the_job_file_says(folder, monkeypatch):
    served = []
    monkeypatch.setattr(type(pipeline), "serve", lambda flow, **options: served.append(options))
    said = {"schedule": "0 2 * * *", "timezone": "Europe/Berlin", "tags": ["nightly"], "parameters": {"refit": True}}
    path = folder.write("a", deployment=said)
    for words in ([], ["--cron", "0 5 * * *", "--timezone", "Asia/Tokyo"]):
        result = CliRunner().invoke(app, ["serve", str(path), *words])
        assert result.exit_code == 0, result.output
    first, second = served
    assert (first["name"], first["tags"]) == (folder.name("a"), ["barycenter", "nightly"])
    assert first["parameters"] == {"job": str(path), "refit": True}
    assert (first["schedule"].cron, first["schedule"].timezone) == ("0 2 * * *", "Europe/Berlin")
    assert (second["schedule"].cron, second["schedule"].timezone) == ("0 5 * * *", "Asia/Tokyo")
    for words, key in ((["--cron", "at night"], "--cron"), (["--timezone", "Mars"], "--timezone")):
        result = CliRunner().invoke(app, ["serve", str(path), *words])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"barycenter: {key}: ")


def test_serve_leaves_the_deployments_of_others_alone(folder, pool, client, monkeypatch, tmp_path):
    monkeypatch.setattr(type(pipeline), "serve", lambda *_, **__: pytest.fail("it was replaced"))
    path, machines = folder.write("a"), pool()
    deploy(folder, "--work-pool", machines)
    name = f"barycenter/{folder.name('a')}"
    flow = client.create_flow(pipeline)
    client.create_deployment(flow, folder.name("b"), parameters={"job": "/srv/b.yaml"}, enforce_parameter_schema=False)
    for words, whose in (
        ([], f"{name} is run by work pool {machines}, made by `barycenter deploy` of a.yaml"),
        (["--name", folder.name("b")], f"barycenter/{folder.name('b')} serves /srv/b.yaml"),
    ):
        result = CliRunner().invoke(app, ["serve", str(path), *words])
        assert result.exit_code == 2
        assert result.stderr.startswith(
            f"barycenter: --name: the deployment {whose}; give another name, or delete it: "
        )


def test_a_deployment_of_another_folder_is_left_alone(folder, pool, client, tmp_path):
    machines = pool()
    folder.write("a")
    deploy(folder, "--work-pool", machines)
    theirs = folder.path
    folder.path = tmp_path / "more"
    folder.path.mkdir()
    folder.write("a")
    _, said = deploy(folder, "--work-pool", machines, code=2)
    assert f"a.yaml: name: the deployment barycenter/{folder.name('a')} was deployed from {theirs};" in said[0]
    folder.write("a", name=folder.name("other"))
    assert deploy(folder, "--work-pool", machines, "--prune")[0][0].startswith("created ")
    assert deployment(client, folder.name("a")).name == folder.name("a")


def test_a_group_is_the_same_wherever_its_folder_is(folder, pool, client, tmp_path):
    machines, group = pool(), f"team-{token_hex(4)}"
    folder.write("a")
    folder.write("b")
    deploy(folder, "--work-pool", machines, "--group", group)
    folder.path = folder.path.rename(tmp_path / "checkout")
    (folder.path / "b.yaml").unlink()
    lines, _ = deploy(folder, "--work-pool", machines, "--group", group)
    assert [line.split()[0] for line in lines] == ["unchanged", "stale"]
    assert f"jobs:{group}/a.yaml" in deployment(client, folder.name("a")).tags


def test_what_was_paused_stays_paused(folder, pool, client):
    machines = pool()
    folder.write("a", deployment={"schedule": "0 2 * * *"})
    deploy(folder, "--work-pool", machines)
    there = deployment(client, folder.name("a"))
    client.update_deployment_schedule(there.id, there.schedules[0].id, active=False)
    folder.write("a", deployment={"schedule": "0 3 * * *"})
    assert deploy(folder, "--work-pool", machines)[0][0].startswith("updated ")
    (plan,) = deployment(client, folder.name("a")).schedules
    assert (plan.schedule.cron, plan.active) == ("0 3 * * *", False)
    client.pause_deployment(there.id)  # as the automation does
    folder.write("a", deployment={"schedule": "0 4 * * *"})
    assert deploy(folder, "--work-pool", machines)[0][0].startswith("updated ")
    assert deployment(client, folder.name("a")).paused


def test_a_pool_that_no_worker_has_given_a_template_takes_any_variable(folder, client):
    name = f"bare-{token_hex(4)}"
    client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    folder.write("a", deployment={"job_variables": {"any": 1}, "work_pool": name})
    deploy(folder)
    there = deployment(client, folder.name("a")).job_variables
    assert there["any"] == 1
    assert "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in there["env"]


@pytest.mark.parametrize(
    ("kind", "variables", "wrong"),
    [
        ("docker", {"mem_limit": "8g", "volumes": ["/srv:/srv"]}, ("image_pull_policy", "sometimes")),
        ("kubernetes", {"memory_limit": "8Gi", "service_account_name": "jobs"}, ("finished_job_ttl", "soon")),
    ],
)
def test_container_pools_take_it_by_their_own_templates(folder, pool, client, kind, variables, wrong):
    containers = pool(kind)
    folder.write("a", deployment={"job_variables": variables, "work_pool": containers})
    _, said = deploy(folder, code=2)
    assert f"a.yaml: deployment.job_variables.image: is missing: the {kind} runs of {containers}" in said[0]
    variables = variables | {"image": "registry.example/barycenter:1"}
    folder.write("a", deployment={"job_variables": variables | dict([wrong]), "work_pool": containers})
    assert f"a.yaml: deployment.job_variables.{wrong[0]}: '{wrong[1]}' is not" in deploy(folder, code=2)[1][0]
    folder.write("a", deployment={"job_variables": variables, "work_pool": containers})
    lines, notes = deploy(folder)
    assert lines[0].startswith("created ")
    mounted = f"a.yaml: the {kind} runs of {containers} need these paths mounted as they are here: corpus.path /"
    assert notes[0].startswith(mounted) == ("volumes" not in variables)
    there = deployment(client, folder.name("a"))
    assert variables.items() <= there.job_variables.items()
    assert there.entrypoint == "barycenter.flows.pipeline.pipeline"
    run = client.create_flow_run_from_deployment(there.id, job_variables={"env": {"B": "2"}})
    assert run.work_pool_name == containers


def test_a_block_that_the_server_lacks_is_named(folder, pool):
    folder.write("a", storage={"credentials_block": "secret/nowhere"})
    _, said = deploy(folder, "--work-pool", pool(), code=2)
    assert said[0] == "barycenter: a.yaml: storage.credentials_block: the Prefect server has no block 'secret/nowhere'"
