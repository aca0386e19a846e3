"""One side of a comparison: a version of an output, its report and its heads, as far as they are there."""

import re
from dataclasses import dataclass
from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_json
from barycenter.infra.versions.manifests import POINTER, read_manifest, report_path

_NEWEST_REPORT = "report/report.json"
_NUMBERED = re.compile(r"(?P<folder>.+)@(?P<number>[0-9]+)")


@dataclass(frozen=True)
class Side:
    """A version to compare.

    Attributes:
        name: Where it is and its number, ``out/emoji@3``.
        storage: The output.
        manifest: Of the version.
        report: The report on it; None where there is none.
    """

    name: str
    storage: Storage
    manifest: Manifest
    report: dict[str, Any] | None

    @classmethod
    def open(cls, given: str, endpoint_url: str | None = None) -> "Side":
        """Of ``DIR``, the version that readers see, or ``DIR@N``, version N.

        Raises:
            RunError: There is no such version.
        """
        folder, number = split_version(given)
        if number is not None and Storage(given, endpoint_url).exists(POINTER):
            folder, number = given, None  # a folder of that very name
        storage = Storage(folder, endpoint_url)
        return cls.of(storage, read_manifest(storage, number), folder)

    @classmethod
    def of(cls, storage: Storage, manifest: Manifest, folder: str | None = None) -> "Side":
        """Of a version in a storage, named by the folder as it was given."""
        return cls(f"{folder or storage.root}@{manifest.number}", storage, manifest, _report(storage, manifest))

    @property
    def job(self) -> dict[str, Any]:
        """Every setting of the job by its path in the job file; empty where the manifest does not hold it."""
        return flattened(self.manifest.settings)

    def about(self) -> dict[str, Any]:
        """What a reader must know to find it again."""
        manifest = self.manifest
        about = {"name": self.name, "number": manifest.number, "version": manifest.version}
        return about | {"committed": manifest.committed, "report": self.report is not None}


def split_version(given: str) -> tuple[str, int | None]:
    """An output and the number of a version in it, if one is named.

    >>> split_version("out/emoji@3/"), split_version("s3://bucket/out/")
    (('out/emoji', 3), ('s3://bucket/out', None))
    """
    given = given.rstrip("/") or given
    numbered = _NUMBERED.fullmatch(given)
    return (given, None) if numbered is None else (numbered["folder"], int(numbered["number"]))


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted paths; lists stay whole.

    >>> flattened({"alignment": {"dim": 8}, "keep": ["a"]})
    {'alignment.dim': 8, 'keep': ['a']}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _report(storage: Storage, manifest: Manifest) -> dict[str, Any] | None:
    """The newest report on a version; that of an output with one version may be the only one there."""
    for path in (report_path(manifest.version), _NEWEST_REPORT):
        if storage.exists(path):
            report: dict[str, Any] = read_json(storage, path)
            if report.get("version") == manifest.version:
                return report
    return None
