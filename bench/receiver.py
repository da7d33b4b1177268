"""An indexer that discards: answers every block with a receipt for its lines, and reads nothing but its headers.

    python bench/receiver.py PORT

As cheap as can be, so that what is measured is the agent. With ``--verify`` it checks digests and line counts too.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading

import zstandard


def serve(port: int, *, verify: bool) -> None:
    """Takes connections until the process ends."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(connection, verify), daemon=True).start()


def answer(connection: socket.socket, verify: bool) -> None:
    """Answers one connection's requests."""
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    have = 0
    with connection:
        while True:
            while (head := buffer.find(b"\r\n\r\n", 0, have)) < 0:
                if not (got := connection.recv_into(view[have:])):
                    return
                have += got
            fields = dict(line.split(b": ", 1) for line in bytes(view[:head]).lower().split(b"\r\n")[1:])
            length, lines = int(fields.get(b"content-length", 0)), int(fields.get(b"auditship-lines", 0))
            body = bytearray(view[head + 4 : have])
            while len(body) < length:
                if not (got := connection.recv_into(view)):
                    return
                body += view[:got]
            have = 0
            if verify and length:
                data = zstandard.decompress(body)
                assert fields[b"auditship-digest"].decode() == f"sha-256:{hashlib.sha256(data).hexdigest()}"
                assert data.count(b"\n") == lines
            receipt = b'{"documents":%d,"duplicates":0,"rejected":0}' % lines
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(receipt), receipt))


if __name__ == "__main__":
    serve(int(sys.argv[1]), verify="--verify" in sys.argv)
