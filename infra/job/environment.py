"""The sections of the job file that say where a job runs: its storage, its workers, its deployment in Prefect."""

import re
from typing import Any

from pydantic import Field, field_validator

from barycenter.infra.job.fields import (
    AutoCount,
    AutoShare,
    Date,
    Flag,
    Names,
    Section,
    Text,
    invalid,
    quote_value,
)


class StorageJob(Section):
    """Access to object storage; credentials come from the environment or a Prefect block only."""

    endpoint_url: Text | None = Field(None, description="URL of an S3-compatible server.")
    credentials_block: Text | None = Field(
        None,
        description="Prefect block with the credentials, e.g. secret/emoji-s3; default: the environment.",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise invalid(f"must begin with http:// or https://, not {quote_value(url)}")
        return url


class RayJob(Section):
    """The workers."""

    address: Text = Field(
        "local", description="local (a Ray of its own), auto or host:port (a running one), none (this process, no Ray)."
    )
    workers: AutoCount = Field("auto", description="Number of workers.")
    threads_per_worker: AutoCount = Field("auto", description="CPU threads of each worker.")
    gpus_per_worker: AutoShare = Field("auto", description="GPUs (or a share of one) of each worker.")

    @field_validator("address", mode="before")
    @classmethod
    def _is_given(cls, address: object) -> object:
        if address is None:
            raise invalid("is empty; leave it out, or write none for a run without Ray")
        return address

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        if address not in ("local", "auto", "none") and not re.fullmatch(r"(ray://)?[^\s:/]+:\d+", address):
            raise invalid(f"must be local, auto, host:port or none, not {quote_value(address)}")
        return address


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
