"""An S3 server that misbehaves: wrapped applications, and how they are served."""

import random
import threading
import time
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server


class Flaky:
    """Wraps a WSGI application: some answers are 500, 503 SlowDown, or cut off in the middle.

    Args:
        app: What it wraps.
        share: Of requests that fail.
        seed: Of the draws.
        stalls: How many of these get no answer before a client's patience of 30 seconds is over.
    """

    STALL_SECONDS = 35.0

    def __init__(self, app, share, seed, stalls=0):
        self.app, self.share, self.random, self.faults, self.stalls = app, share, random.Random(seed), 0, stalls
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            dice = self.random.random()
            fault = dice < self.share
            self.faults += fault
            stalled = fault and self.stalls > 0
            self.stalls -= stalled
        if not fault:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if stalled:
            time.sleep(self.STALL_SECONDS)
        if dice < self.share / 3 and environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Length", "1000000"), ("ETag", '"x"')])
            return [b"only this"]
        code, status = ("SlowDown", "503 Slow Down") if dice < self.share * 2 / 3 else ("InternalError", "500 Oops")
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]


def serve(app: Any, port: int = 0) -> tuple[BaseWSGIServer, str]:
    """Serves a WSGI application on a thread; the server and its address."""
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"
