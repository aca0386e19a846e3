"""The Prefect deployments of a folder's job files: what they should be, checked, and made so.

A deployment holds the whole job, so its work pool needs no job file; a tag says which file it is of. Deployments have
no limit of concurrency: of two runs on one output, ``output.busy`` of the job decides.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import WorkPool, WorkPoolStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.schema_tools import validate
from pydantic import ValidationError

from barycenter.flows.environment import FOR_WORK_POOLS
from barycenter.flows.pipeline import pipeline
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from barycenter.infra.names import identifier

TAG = "barycenter"
_FILE_TAG = "jobs:"
_ENTRYPOINT = f"{pipeline.fn.__module__}.{pipeline.fn.__name__}"
_CONTAINERS = ("docker", "kubernetes")
_PAGE = 100

Problem = tuple[str, JobError]
"""A job file and what is wrong with it."""

Action = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True)
class Defaults:
    """What counts for job files that do not say it: the options of `barycenter deploy`."""

    work_pool: str = "default"
    schedule: str | None = None
    timezone: str | None = None
    tags: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises JobError on the option that is wrong, before any file is read."""
        check_tags(self.tags, "--tag")
        if self.schedule is not None or self.timezone is not None:
            cron_schedule(self.schedule or "0 0 * * *", self.timezone or "UTC", ("--schedule", "--timezone"))


@dataclass(frozen=True)
class Wanted:
    """The deployment that a job file asks for.

    Attributes:
        file: Name of the job file.
        name: Name of the deployment: the job's, else the file's without its ending.
        job: The job, with absolute paths.
        work_pool: Name of the work pool.
        schedule: When it runs; None: when asked.
        tags: Its tags, the file's among them.
    """

    file: str
    name: str
    job: Job
    work_pool: str
    schedule: CronSchedule | None
    tags: tuple[str, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its runs: what the file gives of the job, and what is asked for beside it.

        Prefect keeps them as JSONB on PostgreSQL, which sorts the keys of objects; hence the order of the inputs.
        """
        job = self.job.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"deployment"})
        flags = self.job.deployment.parameters.model_dump(mode="json", exclude_unset=True)
        return {"job": job, "input_order": list(self.job.inputs), **flags}


def read_folder(
    folder: Path, group: str, overrides: Sequence[str], defaults: Defaults
) -> tuple[list[Wanted], list[Problem]]:
    """What the job files of a folder ask for, in the order of their names, and what is wrong with the others.

    Args:
        folder: Its ``.yaml`` and ``.yml`` files are job files.
        group: Names the deployments that belong together.
        overrides: ``key.path=value`` each, which replace values of every file.
        defaults: What counts for files that do not say it.

    Raises:
        JobError: There is no such folder.
    """
    if not folder.is_dir():
        raise JobError("", f"{folder} is {'a file; name its folder' if folder.exists() else 'not there'}")
    wanted: dict[str, Wanted] = {}
    problems: list[Problem] = []
    files = (path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    for path in sorted(files):
        try:
            asked = _wanted(path.name, path.stem, load_job(path, overrides), group, defaults)
            first = wanted.setdefault(asked.name, asked)
            if first is not asked:
                raise JobError("name", f"{first.file} has the same name, {asked.name}; give each its own")
        except JobError as error:
            problems.append((path.name, error))
    return list(wanted.values()), problems


def _wanted(file: str, stem: str, job: Job, group: str, defaults: Defaults) -> Wanted:
    said = job.deployment
    check_tags(said.tags, "deployment.tags")
    cron = said.schedule or defaults.schedule
    schedule = cron_schedule(cron, said.timezone or defaults.timezone or "UTC") if cron is not None else None
    return Wanted(
        file,
        name_for(job, stem),
        job,
        said.work_pool or defaults.work_pool,
        schedule,
        tuple(dict.fromkeys((TAG, *said.tags, *defaults.tags, f"{_FILE_TAG}{group}/{file}"))),
    )


def name_for(job: Job, stem: str, given: str | None = None) -> str:
    """The name of a job's deployment: the one that is given, the job's, else its file's without the ending."""
    return identifier(given or (job.name if job.explicit("name") else stem))


def check_tags(tags: Sequence[str], key: str) -> None:
    """Refuses tags that would be taken for the one that names a deployment's job file; the JobError is on ``key``."""
    for tag in tags:
        if tag.startswith(_FILE_TAG):
            raise JobError(key, f"{tag!r} begins as the tag that names the job file; choose another")


def cron_schedule(
    cron: str, timezone: str, keys: tuple[str, str] = ("deployment.schedule", "deployment.timezone")
) -> CronSchedule:
    """A schedule; what is wrong with it is a JobError on the first of ``keys``, with its time zone on the second."""
    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        detail = error.errors()[0]
        wrong_zone = detail["loc"] == ("timezone",)
        text = f"{timezone!r} is no time zone such as Europe/Berlin" if wrong_zone else f"{cron!r} is no cron line"
        reason = " ".join(detail["msg"].split()).removeprefix("Value error, ")[:200]
        raise JobError(keys[wrong_zone], f"{text} ({reason})") from None


class Deployments:
    """The deployments of the whole job on a Prefect server.

    Args:
        client: Of the server.
        group: Names the deployments that belong together.
    """

    def __init__(self, client: SyncPrefectClient, group: str) -> None:
        self._client, self._group = client, group
        self._pools: dict[str, WorkPool | None] = {}
        self.there = {each.name: each for each in self._read()}

    def check(self, wanted: Wanted) -> Iterator[JobError]:
        """Yields what the server would refuse, or what could not run, of a deployment."""
        there = self.there.get(wanted.name)
        if there is not None and (owner := self._owner(there)) != self._group:
            who = f"was deployed from {owner}" if owner else "was not made by `barycenter deploy`"
            yield JobError(
                "name",
                f"the deployment {self.name_of(wanted.name)} {who}; choose another name, or delete that one: "
                f"`prefect deployment delete {self.name_of(wanted.name)}`",
            )
        block = wanted.job.storage.credentials_block
        if block is not None and not self._has_block(block):
            yield JobError("storage.credentials_block", f"the Prefect server has no block {block!r}")
        pool = self.pool(wanted.work_pool)
        if pool is None:
            yield JobError(
                "deployment.work_pool",
                f"there is no work pool {wanted.work_pool!r}; `prefect work-pool create {wanted.work_pool} "
                "--type process` makes one",
            )
        else:
            yield from _variable_problems(wanted, pool)

    def pool(self, name: str) -> WorkPool | None:
        """A work pool; None where there is none of that name."""
        if name not in self._pools:
            try:
                self._pools[name] = self._client.read_work_pool(name)
            except ObjectNotFound:
                self._pools[name] = None
        return self._pools[name]

    def _has_block(self, block: str) -> bool:
        slug, _, name = block.partition("/")
        try:
            self._client.read_block_document_by_name(name, block_type_slug=slug, include_secrets=False)
        except ObjectNotFound:
            return False
        return True

    def notes(self, wanted: Wanted) -> Iterator[str]:
        """Yields what a user should know of a deployment that can be made."""
        pool = self.pool(wanted.work_pool)
        assert pool is not None
        local = [f"{key} {path}" for key, path in _local_paths(wanted.job)]
        if pool.type != "process" and local and "volumes" not in wanted.job.deployment.job_variables:
            yield f"the {pool.type} runs of {pool.name} need these paths mounted as they are here: {', '.join(local)}"
        if pool.status == WorkPoolStatus.NOT_READY:
            yield f"no worker is at work pool {pool.name}; start one: `prefect worker start --pool {pool.name}`"
        elif pool.status == WorkPoolStatus.PAUSED:
            yield f"work pool {pool.name} is paused; `prefect work-pool resume {pool.name}`"

    def compare(self, wanted: Wanted) -> Action:
        """What :meth:`apply` would do."""
        there = self.there.get(wanted.name)
        if there is None:
            return "created"
        return "unchanged" if _comparable(there) == _comparable_values(self._values(wanted)) else "updated"

    def apply(self, wanted: Wanted) -> Action:
        """Makes the deployment what its file says, unless it is so; one that was paused stays paused.

        Raises:
            RunError: The server refuses it.
        """
        action = self.compare(wanted)
        if action != "unchanged":
            try:
                flow = self._client.create_flow_from_name(pipeline.name)
                self._client.create_deployment(flow, enforce_parameter_schema=True, **self._values(wanted))
            except PrefectHTTPStatusError as error:
                raise RunError(f"{wanted.file}: the Prefect server refuses the deployment: {_detail(error)}") from error
        return action

    def stale(self, wanted: Sequence[Wanted]) -> list[DeploymentResponse]:
        """The deployments of this group that no file asks for any more."""
        names = {each.name for each in wanted}
        return [each for each in self.there.values() if self._owner(each) == self._group and each.name not in names]

    def delete(self, deployment: DeploymentResponse) -> None:
        """Deletes a deployment with its schedule; its runs stay."""
        self._client.delete_deployment(deployment.id)

    @staticmethod
    def name_of(deployment: str) -> str:
        """Flow and name of a deployment, as Prefect's commands take it."""
        return f"{pipeline.name}/{deployment}"

    def _read(self) -> Iterator[DeploymentResponse]:
        flows = FlowFilter(name=FlowFilterName(any_=[pipeline.name]))
        offset = 0
        while page := self._client.read_deployments(flow_filter=flows, limit=_PAGE, offset=offset):
            yield from page
            offset += len(page)

    @staticmethod
    def _owner(deployment: DeploymentResponse) -> str | None:
        """The group of a deployment; None for one that was made otherwise."""
        tag = _file_tag(deployment)
        return None if tag is None else tag.rpartition("/")[0]

    def _values(self, wanted: Wanted) -> dict[str, Any]:
        """The arguments of Prefect's ``create_deployment``."""
        there, pool = self.there.get(wanted.name), self.pool(wanted.work_pool)
        assert pool is not None
        paused = there is not None and bool(there.schedules) and not any(each.active for each in there.schedules)
        schedules = [] if wanted.schedule is None else [wanted.schedule]
        return {
            "name": wanted.name,
            "version": wanted.job.fingerprint(),
            "description": f"{wanted.job.name}, from {wanted.file}; `barycenter deploy` writes this deployment.",
            "schedules": [DeploymentScheduleCreate(schedule=each, active=not paused) for each in schedules],
            "parameters": wanted.parameters,
            "work_pool_name": wanted.work_pool,
            "tags": list(wanted.tags),
            "entrypoint": _ENTRYPOINT,
            "parameter_openapi_schema": pipeline.parameters.model_dump(mode="json", exclude_unset=True),
            "job_variables": _variables(wanted, pool),
        }


def file_of(deployment: DeploymentResponse) -> str:
    """The job file that a deployment was made from."""
    return (_file_tag(deployment) or "").rpartition("/")[2]


def _file_tag(deployment: DeploymentResponse) -> str | None:
    return next((tag.removeprefix(_FILE_TAG) for tag in deployment.tags if tag.startswith(_FILE_TAG)), None)


def _variables(wanted: Wanted, pool: WorkPool) -> dict[str, Any]:
    """The job's variables for its work pool, with the environment that Prefect reads when a run's process starts."""
    variables, known = dict(wanted.job.deployment.job_variables), _known_variables(pool)
    if (not known or "env" in known) and isinstance(env := variables.get("env", {}), dict):
        variables["env"] = {**FOR_WORK_POOLS, **env}
    return variables


def _known_variables(pool: WorkPool) -> dict[str, Any]:
    """The variables of a work pool's base job template, by name; none as long as no worker has given it a template."""
    known: dict[str, Any] = pool.base_job_template.get("variables", {}).get("properties", {})
    return known


def _variable_problems(wanted: Wanted, pool: WorkPool) -> Iterator[JobError]:
    key, known, variables = "deployment.job_variables", _known_variables(pool), _variables(wanted, pool)
    for name in variables if known else ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            yield JobError(f"{key}.{name}", f"work pool {pool.name} ({pool.type}) has no such variable; {hint}")
    schema = pool.base_job_template.get("variables", {})
    for error in validate(variables, schema, ignore_required=True, allow_none_with_default=True):
        yield JobError(".".join([key, *map(str, error.absolute_path)]), error.message)
    if pool.type in _CONTAINERS and "image" in known and not (variables.get("image") or known["image"].get("default")):
        yield JobError(
            f"{key}.image",
            f"is missing: the {pool.type} runs of {pool.name} would have Prefect's own image, without barycenter; "
            "build infra/deploy/Dockerfile and name its image here or in the pool's template",
        )


def _local_paths(job: Job) -> Iterator[tuple[str, str]]:
    """The paths of a job that are on this machine, by key."""
    paths = {"corpus.path": job.corpus.path, "output.path": job.output.path, "alignment.from": job.alignment.from_}
    paths |= {f"output.reuse[{number}]": path for number, path in enumerate(job.output.reuse)}
    for name, part in job.inputs.items():
        paths |= {f"inputs.{name}.encoder": part.encoder, f"inputs.{name}.weights": part.weights}
        paths[f"inputs.{name}.corpus.path"] = part.corpus.path if part.corpus is not None else None
    return ((key, path) for key, path in paths.items() if path is not None and path.startswith("/"))


def _comparable(there: DeploymentResponse) -> str:
    """What a deployment is, in a form that is equal for equal ones."""
    values = {name: getattr(there, name) for name in _COMPARED}
    return _text(values | {"schedules": [_schedule_text(each.schedule) for each in there.schedules]})


def _comparable_values(values: dict[str, Any]) -> str:
    """The same of what a deployment should be."""
    wanted = {name: values[name] for name in _COMPARED}
    return _text(wanted | {"schedules": [_schedule_text(each.schedule) for each in values["schedules"]]})


_COMPARED = (
    "version",
    "description",
    "parameters",
    "work_pool_name",
    "tags",
    "entrypoint",
    "parameter_openapi_schema",
    "job_variables",
)


def _schedule_text(schedule: Any) -> str:
    return _text(schedule.model_dump(mode="json"))


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        return str(error.response.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
