"""What it costs to list a corpus of pictures, compare it with the last run and plan: seconds, requests, megabytes.

A folder of pictures on a disk and a bucket of them on an S3 server in another process; every shard is embedded already,
so that nothing is left but to find that out. One row a picture; of many more, time and requests grow in proportion.
"""

import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}

from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.planning.plan import describe_plan, prepare
from barycenter.tasks.run.identities import embedding_ids
from benchmarks.harness import finish, in_new_process, median, note, table, versions
from benchmarks.s3_requests import serve

LOCAL = int(os.environ.get("LOCAL", str(10**6)))
REMOTE = int(os.environ.get("REMOTE", str(10**5)))
A_FOLDER = 1000
ROUNDS = 3


def name(number: int) -> str:
    return f"{number // A_FOLDER:05d}/{number:08d}.png"


def job(corpus: str, out: str, endpoint: str) -> Job:
    return Job.model_validate(
        {
            "corpus": {"path": corpus},
            "inputs": {"image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"}},
            "output": {"path": out},
            "storage": {"endpoint_url": endpoint or None},
        }
    )


def plan(corpus: str, out: str, endpoint: str, make: str) -> dict[str, float]:
    """Lists, compares, plans; the first time, makes an empty embedding file for every shard instead."""
    began = time.perf_counter()
    run = prepare(job(corpus, out, endpoint))
    listed = time.perf_counter() - began
    if make:
        for name_of, embedding_id in embedding_ids(run).items():
            for shard in run.shards:
                run.storage.write(embedding_path(name_of, embedding_id, shard.id), b"")
        return {}
    left = describe_plan(run)
    assert left["inputs"]["image"]["shards_left"] == 0, left
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": left["rows"], "list_seconds": listed, "seconds": seconds, "megabytes": memory}


def measured(corpus: str, out: str, endpoint: str, counts: Any) -> dict[str, Any]:
    call = "plan(*sys.argv[1:5])"
    in_new_process("listing", call, corpus, out, endpoint, "make")
    rounds, requests = [], {}
    for _ in range(ROUNDS):
        if counts is not None:
            counts.taken()
        rounds.append(in_new_process("listing", call, corpus, out, endpoint, ""))
        requests = dict(counts.taken()) if counts is not None else {}
        note(rounds[-1], requests)
    return {key: median([each[key] for each in rounds]) for key in rounds[0]} | {"requests": requests}


def local(scratch: Path) -> dict[str, Any]:
    for number in range(LOCAL):
        path = scratch / "pictures" / name(number)
        if number % A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    return measured(str(scratch / "pictures"), str(scratch / "out"), "", None)


def remote() -> dict[str, Any]:
    from moto.s3.models import s3_backends

    counts, endpoint = serve()
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("pictures", "us-east-1")
    for number in range(REMOTE):
        backend.put_object("pictures", name(number), b"")
    return measured("s3://pictures", "s3://pictures-out/run", endpoint, counts)


def main() -> None:
    threading.stack_size(1 << 20)
    with tempfile.TemporaryDirectory() as scratch:
        figures = {"local": local(Path(scratch))}
    from moto.s3.models import s3_backends

    s3_backends["123456789012"]["aws"].create_bucket("pictures-out", "us-east-1")
    figures["s3"] = remote()
    table([{"where": where, **each} for where, each in figures.items()])
    per_row = {where: each["seconds"] / each["rows"] for where, each in figures.items()}
    note({where: f"10^7 pictures: about {seconds * 10**7:,.0f} s" for where, seconds in per_row.items()})
    finish(
        {**figures, "seconds_of_10^7": {w: s * 10**7 for w, s in per_row.items()}, "versions": versions("s3fs", "moto")}
    )


if __name__ == "__main__":
    main()
