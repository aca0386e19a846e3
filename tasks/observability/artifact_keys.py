"""Under which keys Prefect shows the artifacts of a job: one history for each job and output."""

import hashlib
import re
from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

WHAT = ("progress", "report", "rejects", "lineage", "output", "ray")
"""What a job shows, as the ends of its keys."""

OUTPUT = "barycenter.output"
"""In an artifact's metadata: which output it is of, as a hash."""


@dataclass(frozen=True)
class History:
    """The keys ``<job>-report``, ``<job>-progress`` and so on, of a job and its output.

    The first output of a name has the plain keys; another under the same name has six digits of its hash in them.

    Args:
        job: Name of the job.
        output: URI of its output.
    """

    job: str
    output: str

    @property
    def mark(self) -> dict[str, str]:
        """The metadata of each artifact."""
        return {OUTPUT: _hash(self.output)[:12]}

    def key(self, what: str, client: SyncPrefectClient) -> str:
        """The key of one of :data:`WHAT` on a server."""
        name = plain(self.job)
        keys = ArtifactCollectionFilterKey(any_=[f"{name}-{each}" for each in WHAT])
        there = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=keys))
        if any((each.metadata_ or {}).get(OUTPUT) != self.mark[OUTPUT] for each in there):
            name += f"-{_hash(self.output)[:6]}"
        return f"{name}-{what}"


def plain(name: str) -> str:
    """A name of small letters, digits and dashes, which are all that an artifact's key may have.

    >>> plain("Emoji, with faces"), plain("絵文字")
    ('emoji-with-faces', 'job-1fc297')
    """
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or f"job-{_hash(name)[:6]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
