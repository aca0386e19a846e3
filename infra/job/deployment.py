"""The section of the job file that `barycenter deploy` reads: when and where Prefect runs the job."""

from typing import Any

from pydantic import Field

from barycenter.infra.job.fields import Date, Flag, Names, Section, Text


class DeploymentParametersJob(Section):
    """What a deployment's runs are asked for; the flags of `barycenter run`."""

    recheck: Flag = Field(False, description="Embed again what refers to pictures that changed.")
    retry_bad: Flag = Field(False, description="Embed again the shards that held bad inputs.")
    refit: Flag = Field(False, description="Fit the alignment again although a committed one has the same settings.")
    adopt: Flag = Field(
        False, description="Embed anew, under a new id, where other versions of the libraries give other vectors."
    )
    as_of: Date | None = Field(None, description="Take the corpus as it was that day: its dated partitions up to it.")


class DeploymentJob(Section):
    """When and where Prefect runs the job; `barycenter deploy` reads it."""

    schedule: Text | None = Field(
        None, description='When the job runs, in cron\'s words, e.g. "0 2 * * *"; without it: when asked.'
    )
    timezone: Text | None = Field(None, description="Time zone of the schedule, e.g. Europe/Berlin; default: UTC.")
    tags: Names = Field([], description="Tags of the deployment and its runs, beside `barycenter`.")
    work_pool: Text | None = Field(None, description="Work pool that runs the job; default: `default`.")
    job_variables: dict[str, Any] = Field(
        {}, description="Variables of the work pool's base job template, e.g. image, env, memory_limit."
    )
    parameters: DeploymentParametersJob = Field(
        DeploymentParametersJob(), description="What each run is asked for, as the flags of `barycenter run`."
    )
