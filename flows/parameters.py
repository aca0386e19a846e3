"""The parameters that every flow takes: a job, or where to find one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from prefect.context import FlowRunContext
from pydantic import Field

from barycenter.fusion.errors import JobError
from barycenter.infra.demo import demo_job, write_demo_corpus
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job

DEMO = "demo"
_DEMO_FOLDER = Path("out/demo")

JobParameter = Annotated[
    Job | str,
    Field(description="The job itself, the path of a job file on the worker's machine, or `demo`."),
]


def job_of(parameter: Job | str, input_order: Sequence[str] = ()) -> Job:
    """A job, the one of a job file, whose relative paths are read from its folder, or ``demo``.

    The demo is the generated corpus under ``out/demo`` of the working directory, written if it is not there.

    Args:
        parameter: What a flow was given.
        input_order: Names of the job's inputs in their order, where that of the parameter may have been lost.

    Raises:
        JobError: There is no such file, or something in it is wrong.
    """
    job = _job_of(parameter)
    if not input_order:
        return job
    if sorted(input_order) != sorted(job.inputs):
        raise JobError("input_order", f"must name each input once: {', '.join(job.inputs)}")
    return job.model_copy(update={"inputs": {name: job.inputs[name] for name in input_order}})


def _job_of(parameter: Job | str) -> Job:
    if isinstance(parameter, Job):
        return parameter.resolved(Path.cwd())
    if parameter == DEMO:
        return demo(_DEMO_FOLDER)
    if not parameter.strip():
        raise JobError("job", "is empty; give a job, the path of a job file, or demo")
    return load_job(parameter)


def demo(folder: Path) -> Job:
    """The demo's job on its corpus, which is written below ``folder`` unless it exists."""
    corpus = write_demo_corpus(folder.resolve() / "corpus")
    return Job.model_validate(demo_job(corpus, folder.resolve() / "features"))


def run_name(what: str = "") -> Callable[[], str]:
    """Names a flow run by its job, e.g. ``embed emoji``; by what was given where that cannot be read."""

    def name() -> str:
        context = FlowRunContext.get()
        given = ((context and context.parameters) or {}).get("job", "")
        return f"{what} {_name(given)}".strip()

    return name


def _name(given: Job | str) -> str:
    if isinstance(given, Job) or given == DEMO:
        return given if isinstance(given, str) else given.name
    try:
        return load_job(given).name
    except JobError:
        return given
