"""What differs in what two versions were made of: the job key by key, data, encoders, alignment."""

from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.tasks.report.comparison.sides import Side

Pairs = dict[str, list[Any]]
"""``{name: [before, after]}`` of what differs."""


def changed_settings(before: Side, after: Side) -> Pairs | None:
    """Settings of the job that differ; None where one side does not say its job."""
    if not before.job or not after.job:
        return None
    return _differing(before.job, after.job)


def changed_data(before: Side, after: Side) -> dict[str, Any]:
    """Rows, sources, bad and missing inputs; counts of both sides, whether or not they differ.

    Returns:
        ``rows``, ``missing`` and ``bad`` {name: [before, after]}; ``sources`` {added, removed, changed: [path]}.
    """
    one, other = before.manifest.rows, after.manifest.rows
    return {
        "rows": {name: [one[name], other[name]] for name in ("read", "written", "rejected")},
        "missing": _side_by_side(one.get("missing", {}), other.get("missing", {})),
        "bad": _side_by_side(one.get("bad", {}), other.get("bad", {})),
        "sources": _changed_sources(_stamps(before.manifest), _stamps(after.manifest)),
    }


def changed_encoders(before: Side, after: Side) -> Pairs:
    """Inputs whose vectors come from another encoder; the encoder and its id, None where the input is not there."""
    return _differing(_encoders(before), _encoders(after))


def changed_alignment(before: Side, after: Side) -> Pairs:
    """What differs in the alignment and the average."""
    return _differing(_alignment(before), _alignment(after))


def _stamps(manifest: Manifest) -> dict[str, Any]:
    """What a file of the corpus is known by, under its relative path."""
    return {source["relative"]: (source["size"], source["stamp"]) for source in manifest.sources}


def _changed_sources(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }


def _encoders(side: Side) -> dict[str, Any]:
    return {
        name: f"{entry.get('encoder') or 'ready vectors'} ({entry.get('dim')}), {entry.get('encoder_id')}"
        for name, entry in side.manifest.inputs.items()
    }


def _alignment(side: Side) -> dict[str, Any]:
    manifest = side.manifest
    fitted = {name: manifest.alignment.get(name) for name in ("method", "regularization", "chosen_by", "rows")}
    own = {"id": manifest.alignment_id, "dim": manifest.dim, "dtype": manifest.dtype}
    return own | fitted | {f"average.{name}": value for name, value in manifest.average.items()}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> Pairs:
    names = dict.fromkeys([*one, *other])
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _side_by_side(one: dict[str, int], other: dict[str, int]) -> Pairs:
    return {name: [one.get(name, 0), other.get(name, 0)] for name in dict.fromkeys([*one, *other])}
