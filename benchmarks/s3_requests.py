"""S3 requests of every stage, counted by the server: a real job over Parquet on an S3 server in this process.

The job is the one of ``scale.py`` (vector inputs of 384 and 512 dimensions, 4,096 rows a shard), at 32,768 rows; the
figures are scaled to a million rows. Prices are those of S3 Standard as listed for us-east-1: 0.005 USD for a thousand
PUT, COPY, POST and LIST requests, 0.0004 USD for a thousand GET and HEAD requests.
"""

import logging
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import finish, note, table, versions
from benchmarks.scale import job_of, local_ray, write_corpus

ROWS = 32_768
DEAR, CHEAP = 0.005 / 1000, 0.0004 / 1000


class Counting:
    """A WSGI application that counts requests by what they are priced as."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.counts: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        key = environ["PATH_INFO"].strip("/").partition("/")[2]
        self.counts["LIST" if method == "GET" and not key else method] += 1
        answer: Iterable[bytes] = self.app(environ, start_response)
        return answer

    def taken(self) -> Counter[str]:
        counts, self.counts = self.counts, Counter()
        return counts


def serve() -> tuple[Counting, str]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return app, f"http://127.0.0.1:{server.server_port}"


def price(counts: Counter[str]) -> float:
    """US dollars."""
    dear = sum(counts[method] for method in ("PUT", "POST", "LIST"))
    return DEAR * dear + CHEAP * (counts["GET"] + counts["HEAD"])


def run(url: str, app: Counting) -> dict[str, Counter[str]]:
    from barycenter.infra.job.models import Job
    from barycenter.tasks.align.stage import fit_alignment
    from barycenter.tasks.embed.stage import embed_input
    from barycenter.tasks.fuse.stage import fuse_features
    from barycenter.tasks.planning.plan import prepare

    data = job_of(Path("/")).model_dump(by_alias=True)
    data["corpus"]["path"], data["output"]["path"] = "s3://scale/corpus", "s3://scale/out"
    data["storage"] = {"endpoint_url": url}
    app.taken()
    counts = {}
    prepared = prepare(Job.model_validate(data))
    counts["plan"] = app.taken()
    with local_ray() as cluster:
        for name in prepared.inputs:
            embed_input(prepared, name, cluster)
        counts["embed"] = app.taken()
        fitted, _ = fit_alignment(prepared, cluster)
        counts["fit"] = app.taken()
        fuse_features(prepared, cluster, fitted, "mean", None)
        counts["fuse"] = app.taken()
    return counts


def main() -> None:
    note("requests:", versions("s3fs", "moto", "pyarrow"))
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    app, url = serve()
    import boto3

    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="scale")
    with tempfile.TemporaryDirectory() as name:
        write_corpus(Path(name) / "corpus", ROWS)
        for file in sorted((Path(name) / "corpus").iterdir()):
            client.upload_file(str(file), "scale", f"corpus/{file.name}")
    counts = run(url, app)
    scale = 1e6 / ROWS
    rows = [
        {"stage": stage, **{method: round(part[method] * scale) for method in ("GET", "HEAD", "PUT", "POST", "LIST")}}
        | {"usd_per_million_rows": round(price(part) * scale, 6)}
        for stage, part in counts.items()
    ]
    table(rows)
    total: Counter[str] = Counter()
    for part in counts.values():
        total.update(part)
    finish(
        {
            "requests_per_million_rows": {method: round(count * scale) for method, count in sorted(total.items())},
            "usd_per_million_rows": round(price(total) * scale, 6),
        }
    )


if __name__ == "__main__":
    main()
