"""Under which versions of libraries, and on which kinds of machine, an output's vectors are made: kept in plan.json."""

from barycenter.fusion.encoders import libraries_of
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import done_shards, sample_path
from barycenter.tasks.embed.versions_check import KnownVersions, Versions
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.plan_file import Plan, read_plan, update_plan


def lacks_sample(run: Run, name: str) -> bool:
    """Whether no sample of an encoder's vectors is kept yet; ready vectors need none."""
    if not libraries_of(run.specs[name]):
        return False
    return not run.storage.exists(sample_path(run.encoders[name].encoder_id))


def borrow_sample(run: Run, name: str) -> None:
    """Takes the sample of an output in ``output.reuse``, whose vectors may be taken over: ours must be the same."""
    path = sample_path(run.encoders[name].encoder_id)
    for root in run.job.output.reuse if lacks_sample(run, name) else ():
        other = Storage(root, run.job.storage.endpoint_url)
        if other.exists(path):
            run.storage.create(path, other.read(path))
            return


def known_versions(run: Run, name: str) -> KnownVersions:
    """What the workers of an input know of its encoder when they start."""
    encoder_id = run.encoders[name].encoder_id
    accepted = read_plan(run.storage).get("versions", {}).get(encoder_id, [])
    has_files = bool(done_shards(run.storage, name, embedding_ids(run)[name]))
    return KnownVersions(name, encoder_id, tuple(accepted), has_files)


class AcceptedVersions:
    """What workers report of an input, written to plan.json as it is new."""

    def __init__(self, run: Run, name: str) -> None:
        self._storage, self._encoder_id = run.storage, run.encoders[name].encoder_id
        self._applies = bool(libraries_of(run.specs[name]))
        self._seen: list[Versions] = []

    def note(self, versions: Versions, *, anew: bool) -> None:
        """Records what a worker runs under, whose vectors are those of the output.

        Args:
            versions: See :data:`~barycenter.tasks.embed.versions_check.Versions`.
            anew: The worker made the sample: nothing that was accepted before was compared with it.
        """
        if not self._applies or (versions in self._seen and not anew):
            return

        def accept(plan: Plan) -> None:
            accepted = plan.setdefault("versions", {}).setdefault(self._encoder_id, [])
            if anew:
                accepted.clear()
            if versions not in accepted:
                accepted.append(versions)

        update_plan(self._storage, accept)
        self._seen.append(versions)
