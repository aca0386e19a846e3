"""Tables of what goes wrong and comes out right."""

from collections import Counter

from benchmarks.result_files import load
from benchmarks.tables.blocks import block, last, table, with_source


@block
def chaos() -> str:
    """Strikes at random, by victim and stage."""
    run = last("chaos")
    each = run.figures["each"]
    stages = list(dict.fromkeys(strike["stage"] for strike in each))
    alike = {strike["features"] for strike in each}
    counted = Counter((strike["victim"], strike["stage"]) for strike in each)
    victims = dict.fromkeys(strike["victim"] for strike in each)
    rows = [[victim, *(str(counted[victim, stage]) for stage in stages)] for victim in victims]
    text = table(["killed, 1,600 rows in 160 shards", *(f"in {stage}" for stage in stages)], rows)
    text += (
        f"\n\n{run.figures['held']} of {run.figures['strikes']} held: after the next run the features were"
        f"{' the same bytes every time' if len(alike) == 1 else ' NOT the same'}, and no shard was done twice."
    )
    return with_source(text, run)


@block
def s3_faults() -> str:
    """The emoji job on S3 beside a local disk."""
    run = last("s3")
    found = run.figures
    rows = [
        ["local disk", "", f"{found['seconds']['local']:.0f} s", ""],
        ["S3", "0", f"{found['seconds']['s3']:.0f} s", _equal(found["s3_equal"])],
        ["S3 with faults", f"{found['s3_faults_faults']:,}", f"{found['seconds']['s3_faults']:.0f} s",
         _equal(found["s3_faults_equal"])],
        ["S3, away for 20 s", "", f"{found['seconds']['s3_away']:.0f} s", _equal(found["s3_away_equal"])],
    ]  # fmt: skip
    head = [f"{found['rows']:,} emoji", "requests that failed", "the whole run", "features as on disk"]
    return with_source(table(head, rows), run)


@block
def cluster() -> str:
    """Three nodes, one of them killed."""
    run = last("cluster")
    found = run.figures
    rows = [
        ["a local run", f"{found['local_seconds']:.0f} s"],
        [f"submitted to {found['nodes']} nodes", f"{found['submit_seconds']:.0f} s"],
        [f"the same, a node killed after {found['shards_done_at_the_kill']} shards",
         f"{found['submit_with_a_node_killed_seconds']:.0f} s"],
        ["files equal, byte for byte", _equal(found["equal_bytes"])],
    ]  # fmt: skip
    return with_source(table([f"{found['rows']} emoji", ""], rows), run)


@block
def bad_images() -> str:
    """Odd and broken pictures through a whole job."""
    run = last("bad_images")
    found = run.figures
    rows = [
        ["pictures", f"{found['files']}, {found['copies']} of them copies of {found['copies'] // 4} bombs"],
        ["embedded", str(found["embedded"])],
        ["in `rejects/`", str(found["rejected"])],
        ["of those that Pillow opens, rejected", f"{found['of_these_rejected']} of {found['pillow_opens']}"],
        ["peak memory of a worker", f"{found['peak_worker_mb']} MB"],
        ["the same before the first picture", f"{found['peak_worker_before_pictures_mb']} MB"],
    ]
    return with_source(table(["odd and broken pictures", ""], rows), run)


@block
def soak() -> str:
    """An hour under faults: what grows."""
    run = last("soak")
    rows = [
        [what, f"{slope['mean']:.0f}{' MB' if 'memory' in what else ''}", f"{slope['percent_an_hour']:+.1f} %"]
        for what, slope in run.figures["slopes"].items()
    ]
    faults = ", ".join(f"{what} {count} times" for what, count in run.figures["faults"].items())
    text = table(["of one run", "mean", "growth an hour"], rows) + f"\n\nFaults: {faults}."
    return with_source(text, run)


@block
def growing_cluster() -> str:
    """Jobs on a cluster that has nothing when they begin."""
    run = next(run for run in reversed(load("elastic")) if "timeline" in run.figures)
    equal = run.figures["equal bytes"]
    parts = {"demo": "demo", "emoji": "emoji", "losing": "emoji, losing nodes"}
    rows = [
        [kind, str(max(count for _, count in run.figures["timeline"][part])), f"{run.figures['timeline'][part][-1][1]}",
         _equal(equal[kind])]
        for part, kind in parts.items()
    ]  # fmt: skip
    rows.append(["demo, two jobs at once", "", "", _equal(equal["two-a"] and equal["two-b"])])
    head = ["from no node", "nodes at most", "at the end", "features, beside a run on this machine"]
    text = f"{table(head, rows)}\n\nNodes lost while it embedded: {run.figures['nodes lost']}."
    return with_source(text, run)


def _equal(same: bool) -> str:
    return "the same bytes" if same else "NOT the same"
