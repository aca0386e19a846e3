"""A job with corpus, pictures and output on S3: the bytes of a local run, through faults and without the server."""

import threading
import time
from pathlib import Path

import boto3
import pytest

from barycenter.infra.demo import demo_job, write_demo_corpus
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest, verify
from tests.chaos.faults import Flaky, serve
from tests.flows.corpora import run_here


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A corpus of texts and pictures, and its job run undisturbed on the local disk."""
    folder = tmp_path_factory.mktemp("demo")
    return write_demo_corpus(folder / "corpus", rows=60), folder


def job(corpus, out, url=None):
    data = demo_job(Path("corpus.jsonl"), Path("out"))
    data["corpus"] |= {"path": str(corpus), "rows_per_shard": 20}
    data["output"] |= {"path": str(out)}
    data["inputs"]["text"]["batch"], data["inputs"]["image"]["batch"] = 512, 16
    data |= {"alignment": {"dim": 16}, "ray": {"workers": 2, "threads_per_worker": 1}}
    return data | {"storage": {"endpoint_url": url}}


def features(storage):
    """Content of the feature files in the manifest's order; their folder is named by the shards, which differ."""
    return [storage.read(file.path) for file in read_manifest(storage).files]


def test_a_run_on_s3_equals_a_local_one_through_faults_and_absence(demo, s3_server, s3_bucket):
    from moto.server import DomainDispatcherApplication, create_backend_app

    corpus, folder = demo
    local = job(corpus, folder / "out")
    run_here(local)
    client = boto3.client("s3", endpoint_url=s3_server)
    for path in corpus.parent.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), s3_bucket, f"corpus/{path.relative_to(corpus.parent)}")
    application = DomainDispatcherApplication(create_backend_app)
    flaky = Flaky(application, share=0.1, seed=3)
    servers = [serve(flaky)]
    port = servers[0][0].server_port
    remote = job(f"s3://{s3_bucket}/corpus/{corpus.name}", f"s3://{s3_bucket}/out", servers[0][1])
    gone = []

    def vanish():
        """Ends the server once two shards are there, for three seconds."""
        storage = Storage(f"s3://{s3_bucket}/out", s3_server)
        while len([path for path in storage.walk("embeddings") if path.endswith(".parquet") and "/." not in path]) < 2:
            time.sleep(0.1)
        servers[0][0].shutdown()
        servers[0][0].server_close()
        gone.append(time.monotonic())
        time.sleep(3)
        servers.append(serve(flaky, port))

    vanishing = threading.Thread(target=vanish)
    vanishing.start()
    try:
        report = run_here(remote)
    finally:
        vanishing.join()
        for server, _ in servers:
            server.shutdown()
    assert gone
    assert flaky.faults > 20
    there = Storage(f"s3://{s3_bucket}/out", s3_server)
    assert report["rows"] == read_manifest(Storage(str(folder / "out"))).rows
    assert features(there) == features(Storage(str(folder / "out")))
    assert verify(there, read_manifest(there)) == []
    changed = next(path for path in sorted(corpus.parent.rglob("*.png")) if path.stat().st_size > 100)
    other = next(path for path in sorted(corpus.parent.rglob("*.png"), reverse=True) if path.stat().st_size > 100)
    client.upload_file(str(other), s3_bucket, f"corpus/{changed.relative_to(corpus.parent)}")
    remote["storage"] = {"endpoint_url": s3_server}
    assert run_here(remote)["speed"]["embed image"]["rows"] == 0
    again = run_here(remote, recheck=True)
    assert (again["speed"]["embed image"]["shards"], again["speed"]["embed text"]["rows"]) == (1, 0)
    assert again["version"] != report["version"]
