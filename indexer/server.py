"""The HTTP server: takes blocks, answers searches, shows the page. One worker process holds one :class:`Indexer`.

``POST /v1/blocks`` is answered with 200 and a receipt only after the store has the lines (see :mod:`indexer.pipeline`).
Every refusal is JSON, ``{"error": "..."}``, with the status of the design's table. Bounded: the size of a body, the lines of a
block (413), the bytes under way (429 beyond it; a line counts for 512 at least), the time a client may take (408).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus

from msgspec.json import encode
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from auditship.block import PATH, BlockError, BlockHeader
from indexer import web
from indexer.access import Access
from indexer.metrics import CONTENT_TYPE, Metrics
from indexer.pipeline import Pipeline, weight
from indexer.receive import Refusal, check_size, open_block
from indexer.record import Maker
from indexer.recorder import Recorder
from indexer.settings import IndexerSettings
from indexer.store.contract import Reader, Unavailable, Writer
from indexer.upkeep import Upkeep

BODY_SLACK_BYTES = 64 * 1024
"""How much longer than its contents a body may be: zstd's worst case on incompressible bytes."""

_log = logging.getLogger("auditship.indexer")
Handler = Callable[[Request], Awaitable[Response]]


class Indexer:
    """One worker's parts and limits."""

    def __init__(
        self,
        settings: IndexerSettings,
        pipeline: Pipeline,
        writer: Writer,
        reader: Reader,
        *,
        upkeep: Upkeep,
        metrics: Metrics,
        maker: Maker,
    ) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.writer = writer
        self.reader = reader
        self.upkeep = upkeep
        self.access = Access(settings)
        self.metrics = metrics
        self.recorder = Recorder(writer, maker, metrics.unrecorded)
        self._in_flight_bytes = 0

    async def take_block(self, request: Request) -> Response:
        """``POST /v1/blocks``."""
        began = time.perf_counter()
        header = BlockHeader.from_headers(request.headers)
        sender = self.access.sender(request.headers.get("Authorization"), header)
        check_size(header, block_bytes_max=self.settings.block_bytes_max)
        with self._reserved(weight(header.length, header.lines)):
            body = await self._body(request, header.length + BODY_SLACK_BYTES)
            data = open_block(header, request.headers.get("Content-Encoding", ""), body)
            receipt = await self.pipeline.take(header, data, sender=sender.name, organizations=sender.organizations)
        self.metrics.stored(header, receipt, time.perf_counter() - began)
        return _json(receipt)

    @contextlib.contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        """Counts a block's bytes as under way; refuses it while there are too many, but always takes one."""
        if self._in_flight_bytes and self._in_flight_bytes + size > self.settings.in_flight_bytes_max:
            raise Refusal(429, f"{self._in_flight_bytes} bytes are under way", retry_after_s=0.2)
        self._in_flight_bytes += size
        self.metrics.in_flight(self._in_flight_bytes)
        try:
            yield
        finally:
            self._in_flight_bytes -= size
            self.metrics.in_flight(self._in_flight_bytes)

    async def _body(self, request: Request, bytes_max: int) -> bytes:
        """The request's body, not longer than it may be and not later than it may come."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.request_timeout_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > bytes_max:
                        raise Refusal(413, f"a body of more than {bytes_max} bytes for the length it claims")
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal(408, f"the block did not come whole within {self.settings.request_timeout_s} s") from None
        return b"".join(chunks)

    async def health(self, request: Request) -> Response:
        """``GET /healthz``: this process answers."""
        del request
        return _json({"status": "ok"})

    async def show_metrics(self, request: Request) -> Response:
        """``GET /metrics``: what all workers have counted, for whoever may search."""
        self.access.check_unlimited_reader(request.headers.get("Authorization"))
        return Response(await asyncio.to_thread(self.metrics.text), media_type=CONTENT_TYPE)

    async def ready(self, request: Request) -> Response:
        """``GET /readyz``: the store could take a block now."""
        del request
        await self.writer.ready()
        return _json({"status": "ready"})


def answering(indexer: Indexer, handler: Handler) -> Handler:
    """A handler whose named errors become answers."""

    async def answer(request: Request) -> Response:
        try:
            indexer.access.check_host(request.headers.get("Host"))
            return await handler(request)
        except BlockError as error:
            return _refused(400, str(error))
        except Refusal as refusal:
            return _refused(refusal.status, refusal.reason, refusal.retry_after_s)
        except Unavailable as error:
            _log.warning("not taken: %s", error)
            return _refused(429 if error.overloaded else 503, str(error), error.retry_after_s)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    return answer


def counting(indexer: Indexer, handler: Handler) -> Handler:
    """A handler whose answers are counted."""

    async def answer(request: Request) -> Response:
        response = await handler(request)
        indexer.metrics.answered(response.status_code)
        return response

    return answer


def application(indexer: Indexer) -> Starlette:
    """The routes of a worker, which closes its store when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(indexer.upkeep.run()), asyncio.create_task(indexer.recorder.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await indexer.pipeline.close()
            await indexer.recorder.flush(is_last=True)
            await indexer.writer.close()
            indexer.reader.close()

    routes = [
        Route(PATH, counting(indexer, answering(indexer, indexer.take_block)), methods=["POST"]),
        Route("/healthz", answering(indexer, indexer.health)),
        Route("/readyz", answering(indexer, indexer.ready)),
        Route("/metrics", answering(indexer, indexer.show_metrics)),
        *(
            Route(path, answering(indexer, handler))
            for path, handler in web.routes(indexer.reader, indexer.access, indexer.recorder)
        ),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _json(value: object, status: int = 200) -> Response:
    return Response(encode(value), status_code=status, media_type="application/json")


def _refused(status: int, reason: str, retry_after_s: float | None = None) -> Response:
    """A refusal; ``Retry-After`` in whole seconds as HTTP has it, at least one."""
    response = _json({"error": reason}, status)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
