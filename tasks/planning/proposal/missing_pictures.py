"""Why pictures that a column seems to name cannot be read, and what to do."""

import os
from itertools import islice

from barycenter.fusion.errors import Reason
from barycenter.infra.corpus.pictures.sources import IMAGES_FOLDER
from barycenter.infra.job.paths import is_uri
from barycenter.tasks.planning.proposal.inputs import Missed

_MOST_FOLDERS = 2_000


def explain(missed: Missed, root: str) -> str:
    """A sentence on a column of which no picture could be read.

    Args:
        missed: The column.
        root: The corpus folder.
    """
    named = missed.value.get("path") if isinstance(missed.value, dict) else missed.value
    start = f"no picture of `{missed.name}` could be read"
    if missed.reason != Reason.FILE_MISSING or not isinstance(named, str) or is_uri(root) or is_uri(named):
        return f"{start}: {missed.reason} ({missed.detail})" if missed.detail else f"{start}: {missed.reason}"
    table = os.path.normpath(f"{root}/{missed.folder}")
    start += f": {named} is neither in {table} nor in its {IMAGES_FOLDER}/"
    name = named.replace("\\", "/").rpartition("/")[2]
    place = _find(root, name) or _find(os.path.dirname(root.rstrip("/")), name)  # noqa: PTH120
    if place is None:
        return f"{start}; put the pictures there, or write paths from the table's folder into `{missed.name}`"
    path = os.path.relpath(f"{place}/{name}", table)
    advice = f"write paths from the table's folder into `{missed.name}`, such as {path}"
    advice += ", and set limits.outside_corpus to true" if path.startswith("..") else ""
    return f"{start}, but in {place}; {advice}"


def _find(folder: str, name: str) -> str | None:
    """The first folder below another that holds a file of a name; of the others so many are looked at."""
    walk = islice(os.walk(folder), _MOST_FOLDERS)
    return next((place for place, _, files in walk if name in files), None)
