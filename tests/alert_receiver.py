"""A webhook's receiver, as a program: remembers every message durably before it answers, so that it may be killed at any time.

    python tests/alert_receiver.py PORT FILE

A path of ``/refused`` is answered with 410. The file gets a line of JSON for each POST: its path, its headers of ours, its
body, and the monotonic time of its arrival.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(port: int, path: str) -> None:
    """Goes on until it is killed."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            arrived = time.monotonic()
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name: value for name, value in self.headers.items() if name.startswith("Auditship-")}
            note = json.dumps({"at": arrived, "path": self.path, "headers": headers, "body": json.loads(body), "raw": body})
            with lock:
                os.write(file, note.encode() + b"\n")
                os.fsync(file)
            self.send_response(410 if self.path == "/refused" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
