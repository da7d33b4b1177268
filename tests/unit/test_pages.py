"""The pages for those who watch a program."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import urllib3

from auditship import pages
from auditship.errors import ConfigurationError
from auditship.pages import Pages


@pytest.fixture(params=["127.0.0.1", "[::1]"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address with a server, one of each kind."""
    host = str(request.param)
    if host == "[::1]":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    with closing(Pages(f"{host}:0", {"/metrics": lambda: (200, b"x 1\n")})) as server:
        yield f"{host}:{server._server.server_address[1]}"


def test_a_page_is_given_also_over_ipv6(address: str) -> None:
    answer = urllib3.request("GET", f"http://{address}/metrics", timeout=5, retries=False)
    assert (answer.status, answer.data) == (200, b"x 1\n")
    assert urllib3.request("GET", f"http://{address}/", timeout=5, retries=False).data == b"/metrics\n"


@pytest.mark.parametrize("address", ["127.0.0.1"], indirect=True)
def test_who_sends_a_request_byte_by_byte_keeps_others_waiting_no_longer_than_its_deadline(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "REQUEST_TIMEOUT_S", 0.5)
    host, port = address.split(":")
    ended = threading.Event()
    with socket.create_connection((host, int(port))) as slow:

        def drip() -> None:
            with suppress(OSError):
                while not ended.wait(0.05):
                    slow.sendall(b"a")

        slow.sendall(b"GET /")
        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = urllib3.request("GET", f"http://{address}/metrics", timeout=20, retries=False)
        ended.set()
        dripping.join()
    assert answer.status == 200


def test_an_address_that_is_none_is_refused_by_name() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        for listen in ("127.0.0.1:99999", "[::1]:99999", f"127.0.0.1:{taken.getsockname()[1]}"):
            with pytest.raises(ConfigurationError, match="metrics_listen") as error:
                Pages(listen, {})
            assert listen in str(error.value)
