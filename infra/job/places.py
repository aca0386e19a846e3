"""Where a job works and stores: the sections of the job file that change no result."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from barycenter.infra.job.fields import (
    NO_SECRET,
    AutoCount,
    AutoShare,
    Count,
    Seconds,
    Section,
    Text,
    invalid,
    quote_value,
)


class WorkerRange(Section):
    """Workers within bounds: on a cluster that grows, what the work is worth."""

    min: Count = Field(1, description="Fewest workers to ask for.")
    max: Count = Field(description="Most workers to ask for.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise invalid(f"min is {self.min} and max is {self.max}; min must not be above max")
        return self


def check_workers(value: object) -> object:
    """Validates a number of workers: ``auto``, a whole number or a range; the range's own keys are checked after."""
    if isinstance(value, dict | WorkerRange) or value == "auto":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise invalid(f"must be auto, a whole number from 1 up or {{min: 1, max: 8}}, not {quote_value(value)}")


RANGE, NUMBER = "a range", "a number"
"""Tags of the two kinds in pydantic's locations of errors; they are no keys of the job file."""

Workers = Annotated[
    Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], Tag(NUMBER)] | Annotated[WorkerRange, Tag(RANGE)],
    Discriminator(lambda value: RANGE if isinstance(value, dict | WorkerRange) else NUMBER),
    BeforeValidator(check_workers),
]


class RayJob(Section):
    """The workers."""

    address: Text = Field(
        "local", description="local (a Ray of its own), auto or host:port (a running one), none (this process, no Ray)."
    )
    workers: Workers = Field(
        "auto", description="Number of workers; {min, max}: what the work is worth, on a cluster that grows."
    )
    start_timeout: Seconds = Field(
        1800.0, description="Seconds to wait for a first worker, nodes that must come before included."
    )
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


class StorageJob(Section):
    """Access to object storage; credentials come from the environment or a Prefect block only."""

    endpoint_url: Text | None = Field(None, description="URL of an S3-compatible server.")
    credentials_block: Text | None = Field(
        None, description="Prefect block with the credentials, e.g. secret/emoji-s3; default: the environment."
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise invalid(NO_SECRET if "@" in url else f"must begin with http:// or https://, not {quote_value(url)}")
        return url
