"""Pictures behind http(s) that no server gives: rejects that another run tries again, or an end of the run."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.pictures import http as fetching
from barycenter.infra.corpus.pictures.http import NO_ANSWER, Hosts
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed.settings import find_execution
from barycenter.tasks.embed.stage import embed_setting, pending_shards
from barycenter.tasks.embed.worker import EmbedWorker, ShardJob
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from tests.infra.corpus.pictures.test_http import free_port

ROWS = 20


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_WAIT_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(fetching, "HOSTS", Hosts())


def picture(row: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), (row * 9, 90, 200 - row * 7)).save(out, "PNG")
    return out.getvalue()


def write(folder: Path, values: list[object]) -> None:
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(picture(row))
    lines = [json.dumps({"id": f"r{row}", "image": value}) + "\n" for row, value in enumerate(values)]
    (folder / "rows.jsonl").write_text("".join(lines))


def prepared(folder: Path, **flags: bool) -> tuple[Run, EmbedWorker]:
    job = {
        "corpus": {"path": str(folder / "rows.jsonl"), "key": "id"},
        "inputs": {"image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 16}},
        "output": {"path": str(folder / "out")},
        "limits": {"http": True, "http_timeout": 5},
    }
    run = Run(Job.model_validate(job), **flags)
    return run, EmbedWorker(embed_setting(run, "image", find_execution(run, "image", WorkerAllocation(1, 1))))


def written(run: Run, *columns: str) -> list[list[object]]:
    path = embedding_path("image", embedding_ids(run)["image"], run.shards[0].id)
    table = run.storage.read_table(path, columns=list(columns))
    return [table.column(column).to_pylist() for column in columns]


@pytest.fixture
def serving() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture(int(self.path.strip("/").removesuffix(".png"))))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_dead_host_rejects_its_rows_and_retry_bad_tries_them_again(
    tmp_path: Path, serving: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def url(row: int) -> str:
        return f"http://127.0.0.1:{serving.server_port}/{row}.png"

    write(tmp_path, [url(row) if row % 2 else f"{row}.png" for row in range(ROWS)])
    with monkeypatch.context() as patched:
        patched.setattr(fetching, "_download", lambda *_: (_ for _ in ()).throw(ConnectionRefusedError("refused")))
        run, worker = prepared(tmp_path)
        result = worker.run(ShardJob(run.shards[0], 16))
    assert dict(result["bad"]) == {"http_error": ROWS // 2}
    ok, reasons, details = written(run, "ok", "reason", "detail")
    assert ok == [row % 2 == 0 for row in range(ROWS)]
    assert all(str(detail).startswith(NO_ANSWER) for detail, good in zip(details, ok, strict=True) if not good)
    assert set(reasons) == {None, "http_error"}
    assert pending_shards(run, "image") == []

    monkeypatch.setattr(fetching, "HOSTS", Hosts())
    again, worker = prepared(tmp_path, retry_bad=True)
    assert [shard.id for shard in pending_shards(again, "image")] == [run.shards[0].id]
    assert not worker.run(ShardJob(again.shards[0], 16, replace=True))["bad"]
    assert written(again, "ok") == [[True] * ROWS]


def test_of_several_pictures_a_row_those_that_failed_are_tried_again(
    tmp_path: Path, serving: ThreadingHTTPServer
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/1.png"
    write(tmp_path, [[f"{row}.png", dead] for row in range(ROWS)])
    run, worker = prepared(tmp_path)
    worker.run(ShardJob(run.shards[0], 16))
    ok, rejects = written(run, "ok", "rejects")
    assert all(ok)
    assert all(line is not None for line in rejects)
    again, _ = prepared(tmp_path, retry_bad=True)
    assert len(pending_shards(again, "image")) == 1


def test_where_nothing_can_be_fetched_the_run_stops_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path, [f"http://127.0.0.1:{free_port()}/{row}.png" for row in range(ROWS)])
    run, worker = prepared(tmp_path)
    with pytest.raises(RunError, match=r"rows.jsonl: none of 20 pictures could be fetched .* run the job again"):
        worker.run(ShardJob(run.shards[0], 16))
    assert len(pending_shards(run, "image")) == 1
