"""What a client may hold of an indexer before it has proven anything: little, and not for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from authority import Authority
from support import header
from uvicorn.server import ServerState

from indexer import protocol
from indexer.protocol import HEAD_BYTES_MAX, HEADERS_MAX, PIPELINE_MAX, Protocol

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = GET + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = 32 << 20
PART = b"y" * 60_000

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Tls = tuple[ssl.SSLContext, ssl.SSLContext]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers without reading: 200, and as many bytes as the path says."""
    del receive
    if scope["type"] == "http":
        size = int(scope["path"][1:] or 0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})


@contextlib.asynccontextmanager
async def serving(tls: Tls | None) -> AsyncIterator[tuple[ServerState, Callable[[], Awaitable[Client]]]]:
    """A server in this process, and what connects to it, with small buffers."""
    server_tls, client_tls = tls or (None, None)
    config, state = uvicorn.Config(application, http=Protocol, lifespan="off", ws="none", log_config=None), ServerState()
    config.load()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(config, state, {}), sock=listening, ssl=server_tls)

    async def connect() -> Client:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, listening.getsockname())
        name = "localhost" if client_tls else None
        return await asyncio.open_connection(sock=client, limit=65_536, ssl=client_tls, server_hostname=name)

    try:
        yield state, connect
    finally:
        server.close()


def with_server(test: Callable[[ServerState, Client], Awaitable[None]], tls: Tls | None = None) -> None:
    """Runs a test with one connection, in uvicorn's loop."""

    async def run() -> None:
        async with serving(tls) as (state, connect), asyncio.timeout(30):
            client = await connect()
            try:
                await test(state, client)
            finally:
                client[1].transport.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def rest(client: Client) -> bytes:
    """All that comes until the server ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := await client[0].read(65_536):
            found += part
    return found


async def ended(state: ServerState) -> None:
    while state.connections:  # noqa: ASYNC110 - uvicorn's set, which tells nobody
        await asyncio.sleep(0.01)


def field(size: int) -> bytes:
    return b"x: " + b"y" * (size - 5) + b"\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GET + field(HEAD_BYTES_MAX - 1000), b"200"),
        (GET + field(HEAD_BYTES_MAX + 1), b"431"),
        (GET + field(1000) * 70, b"431"),
        (GET.replace(b"/", b"/?" + b"q" * HEAD_BYTES_MAX, 1), b"431"),
        (GET + b"a: b\r\n" * (HEADERS_MAX - 1), b"200"),
        (GET + b"a: b\r\n" * HEADERS_MAX, b"431"),
        (GET.replace(b"Host", b"h" * HEAD_BYTES_MAX), b"431"),
    ],
)
@pytest.mark.parametrize("step", [1 << 20, 10_000])
def test_a_head_has_so_many_bytes_and_headers_at_most(head: bytes, expected: bytes, step: int) -> None:
    async def test(_: ServerState, client: Client) -> None:
        whole = head + b"\r\n"
        for at in range(0, len(whole), step):
            client[1].write(whole[at : at + step])
            await asyncio.sleep(0)
        assert (await client[0].read(12))[-3:] == expected

    with_server(test)


def test_all_that_an_agent_may_say_of_a_block_fits() -> None:
    said = header(host="h" * 12_288, path=b"\xff" * 4096, agent="a" * 128, offset=2**63 - 1).to_headers()
    assert sum(len(name) + len(value) for name, value in said.items()) < HEAD_BYTES_MAX // 2


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (GET + b"x: ", PART),
        (GET.replace(b"/", b"/?", 1).partition(b" HTTP")[0], PART),
        (CHUNKED + b"0\r\nx: ", PART),
        (CHUNKED + b"0\r\n", b"x: y\r\n"),
        (CHUNKED + b"1;e=", PART),
        (GET + b"\r\n", b"\r\n" * 30_000),
    ],
)
def test_what_never_ends_ends_the_connection_before_much_has_come(start: bytes, more: bytes) -> None:
    async def test(state: ServerState, client: Client) -> None:
        client[1].write(start)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while state.connections or not sent:
                client[1].write(more)
                sent += len(more)
                await client[1].drain()
                await asyncio.sleep(0)
        assert sent < 4 << 20

    with_server(test)


def test_few_requests_wait_behind_the_one_that_is_answered() -> None:
    async def test(state: ServerState, client: Client) -> None:
        client[1].write((GET + b"\r\n") * (PIPELINE_MAX * 4))
        assert (await rest(client)).count(b" 200 ") <= PIPELINE_MAX + 1
        await ended(state)

    with_server(test)


@pytest.fixture(params=[None, pytest.param("tls", marks=pytest.mark.program("openssl"))])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Tls | None:
    """What both sides know of each other; none without TLS."""
    if request.param is None:
        return None
    authority = Authority(tmp_path, "authority")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.sign("server"))
    return server, ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_TIMEOUT_S", "KEEP_ALIVE_S", "UNREAD_TIMEOUT_S"):
        monkeypatch.setattr(protocol, name, 0.2)
    monkeypatch.setattr(protocol, "LOOK_S", 0.02)


@pytest.mark.usefixtures("_in_a_hurry")
@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (GET, b""),
        (GET + b"x: ", b"y"),
        (GET + b"\r\n", b""),
        (GET + b"\r\n", b"\r\n"),
        (GET + b"Content-Length: 1000000\r\n\r\n", b"b"),
        ((GET + b"\r\n") * 3 + b"GE", b""),
    ],
)
def test_a_connection_on_which_nothing_goes_on_is_ended_whatever_bytes_may_come(start: bytes, drip: bytes) -> None:
    async def test(state: ServerState, client: Client) -> None:
        client[1].write(start)
        answered = asyncio.create_task(rest(client))
        while not answered.done():
            client[1].write(drip)
            await asyncio.sleep(0.01)
        assert (await answered).count(b" 200 ") == start.count(b"\r\n\r\n")
        await ended(state)

    with_server(test)


@pytest.mark.usefixtures("_in_a_hurry")
def test_an_answer_that_is_not_read_ends_the_connection(tls: Tls | None) -> None:
    async def test(state: ServerState, client: Client) -> None:
        client[1].write(GET.replace(b"/", b"/%d" % BIG, 1) + b"\r\n")
        await client[0].read(100)
        await ended(state)
        assert len(await rest(client)) < BIG

    with_server(test, tls)


@pytest.mark.usefixtures("_in_a_hurry")
def test_an_answer_that_is_read_slowly_comes_whole(tls: Tls | None) -> None:
    async def test(_: ServerState, client: Client) -> None:
        client[1].write(GET.replace(b"/", b"/%d" % BIG, 1) + b"\r\n")
        left = len(await client[0].readuntil(b"\r\n\r\n")) and BIG
        for at in range(100):
            left -= len(await client[0].readexactly(65_536 if at else 1))
            await asyncio.sleep(0.005)
        await client[0].readexactly(left)

    with_server(test, tls)


def test_what_is_on_its_way_may_be_asked_until_a_connection_is_told_to_be_lost(tls: Tls | None) -> None:
    async def test(state: ServerState, client: Client) -> None:
        client[1].write(GET + b"\r\n")
        await client[0].readuntil(b"\r\n\r\n")
        (connection,) = state.connections
        assert isinstance(connection, Protocol)
        connection.transport.abort()
        while state.connections:
            protocol._answers(connection.transport)
            await asyncio.sleep(0)

    with_server(test, tls)
