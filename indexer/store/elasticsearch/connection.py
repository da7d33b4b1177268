"""A cluster as seen with one key: bytes out, bytes in.

The official client chooses among the nodes, speaks TLS and keeps connections; bodies pass through it untouched, since ours
are ready bytes and answers are decoded into structs. Its blocking form is used, in threads: bulk calls are few and large,
so a thread for each costs nothing that can be measured, and the asynchronous form would need a second HTTP library.

Nothing is tried again here. A request whose outcome is unknown must not be repeated before its documents were looked for
(see :mod:`.writer`), and only the caller knows how. Every way of not getting an answer is :class:`Unavailable`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from elastic_transport import Serializer, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError
from msgspec import DecodeError, Struct
from msgspec.json import decode

from auditship.errors import ConfigurationError
from auditship.settings import read_secret
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Unavailable

JSON: Final = "application/vnd.elasticsearch+json; compatible-with=9"
NDJSON: Final = "application/vnd.elasticsearch+x-ndjson; compatible-with=9"
SETUP_HINT: Final = "Run `auditship setup` with an administrator's credentials."
NO_ANSWER: Final = (DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises where there is no answer: no JSON, or JSON of another shape; not UTF-8; nested too deep."""
_SHOWN_MAX: Final = 500

logging.getLogger("elastic_transport").setLevel(logging.WARNING)  # it would tell of every request


class Answer(Struct, frozen=True):
    """What the cluster said: 2xx, or a 4xx that is about this very request."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status < 300  # noqa: PLR2004 - HTTP

    def reason(self) -> str:
        """The error's reason, in the cluster's words, short enough to show."""
        return error_reason(self.body)


class Unauthorized(Unavailable):
    """The cluster does not know the key."""


class _Identity(NamedTuple):
    """The client of a key: replaced as one, so that a thread never has the one without the other."""

    client: Elasticsearch
    api_key: str | None


class _AsIs(Serializer):
    """Bodies are bytes on both sides."""

    mimetype = "*"

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: Any) -> bytes:
        assert isinstance(data, bytes)
        return data


class Connection:
    """A cluster, reached with one identity.

    Args:
        settings: addresses, authority, time-out.
        api_key: an encoded API key; or
        basic: a user's name and password; or neither, where the cluster asks for none.
        renewed: reads the API key again; asked when the cluster knows the present one no more.
    """

    def __init__(
        self,
        settings: ElasticsearchSettings,
        *,
        api_key: str | None = None,
        basic: tuple[str, str] | None = None,
        renewed: Callable[[], str | None] | None = None,
    ) -> None:
        self._renewed = renewed
        if any("@" in url for url in settings.urls):
            raise ConfigurationError("elasticsearch.urls: a name or password stands in an address", "Keys belong into files.")
        self.where = ", ".join(settings.urls)
        tls: dict[str, Any] = {"ca_certs": str(settings.ca_file)} if settings.ca_file else {}
        as_is = _AsIs()
        types = (
            "application/vnd.elasticsearch+json",
            "application/vnd.elasticsearch+x-ndjson",
            "application/json",
            "text/plain",
        )
        try:
            client = Elasticsearch(
                list(settings.urls),
                api_key=api_key,
                basic_auth=basic,
                request_timeout=settings.request_timeout_s,
                max_retries=0,
                retry_on_timeout=False,
                retry_on_status=(),
                connections_per_node=settings.bulks_in_flight_max + 4,
                serializers=dict.fromkeys(types, as_is),
                **tls,
            )
        except (ValueError, OSError) as error:
            raise ConfigurationError(f"elasticsearch: {self.where}: {error}", "See [elasticsearch] urls and ca_file.") from None
        self._now = _Identity(client, api_key)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """One request, one answer; ``timeout_s`` instead of the configured one.

        Raises:
            Unavailable: no answer, or one that says "not now" (429, 5xx) or "not you" (401, 403).
        """
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type
        now = self._now
        try:
            return self._once(now.client, method, path, body, headers, params=params, timeout_s=timeout_s)
        except Unauthorized as error:
            other = self._renewed_since(now, error)
            if other is None:
                raise
            return self._once(other.client, method, path, body, headers, params=params, timeout_s=timeout_s)

    def _renewed_since(self, sent: _Identity, refused: Unauthorized) -> _Identity | None:
        """Who to be instead of whoever a request was sent as, in any thread: none, if no other key stands in the file."""
        try:
            key = None if self._renewed is None else self._renewed()
        except ConfigurationError as error:
            raise Unauthorized(f"{refused.what}; {error.what}", error.hint, retry_after_s=refused.retry_after_s) from None
        if key is None or key == sent.api_key:
            return None
        other = self._now = _Identity(sent.client.options(api_key=key), key)
        return other

    def _once(
        self,
        client: Elasticsearch,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        params: Mapping[str, Any] | None,
        timeout_s: float | None,
    ) -> Answer:
        client = client if timeout_s is None else client.options(request_timeout=timeout_s)
        try:
            answer = client.perform_request(method, path, params=params, headers=headers, body=body)
        except UnsupportedProductError:
            raise Unavailable(f"{self.where} is not Elasticsearch", "See [elasticsearch] urls.", retry_after_s=30) from None
        except ApiError as error:
            found = error.body if isinstance(error.body, bytes) else str(error.body or "").encode()
            return self._judged(method, path, Answer(error.meta.status, found))
        except TransportError as error:
            raise Unavailable(
                f"no answer from Elasticsearch at {self.where}: {type(error).__name__}: {str(error.message)[:_SHOWN_MAX]}",
                "See whether the cluster runs, and [elasticsearch] urls and ca_file.",
            ) from None
        found = answer.body if isinstance(answer.body, bytes) else b""
        return Answer(answer.meta.status, found)

    def _judged(self, method: str, path: str, answer: Answer) -> Answer:
        """The answer, if it is about the request and not about the moment or the key."""
        what = f"Elasticsearch at {self.where}: {method} {path.partition('?')[0]}: {answer.status} {answer.reason()}"
        if answer.status in {401, 403}:
            kind = Unauthorized if answer.status == 401 else Unavailable  # noqa: PLR2004 - HTTP
            raise kind(what, f"The key or the credentials do not suffice. {SETUP_HINT}", retry_after_s=10)
        if answer.status == 429:  # noqa: PLR2004 - HTTP
            raise Unavailable(what, "The cluster is overloaded.", overloaded=True)
        if answer.status >= 500:  # noqa: PLR2004 - HTTP
            raise Unavailable(what)
        return answer

    def close(self) -> None:
        """Lets the connections go."""
        self._now.client.close()


class Reason(Struct, frozen=True):
    """An error, as the cluster writes it."""

    type: str = ""
    reason: str | None = None
    caused_by: Reason | None = None
    root_cause: tuple[Reason, ...] = ()


class _Error(Struct):
    error: Reason | str = ""


def error_of(body: bytes) -> Reason | str:
    """The error in a body; as text where it is not in the form that the cluster gives a request's, or the body's beginning."""
    try:
        return decode(body, type=_Error).error
    except NO_ANSWER:
        return body.decode("utf-8", "replace")


def error_reason(body: bytes) -> str:
    """The innermost reason of an error's body; the body's beginning where it is none."""
    error = error_of(body)
    return error[:_SHOWN_MAX] if isinstance(error, str) else reason_text(error)


def reason_text(error: Reason) -> str:
    """An error with its innermost cause, as one text."""
    error = error.root_cause[0] if error.root_cause else error
    text = f"{error.type}: {error.reason}"
    while error.caused_by is not None:
        error = error.caused_by
    inner = f"{error.type}: {error.reason}"
    return (text if inner in text else f"{text}: {inner}")[:_SHOWN_MAX]


def key_of(settings: ElasticsearchSettings, side: str) -> str | None:
    """The API key of the ``writer`` or the ``reader``; none where neither is configured.

    Raises:
        ConfigurationError: only one of the two is configured, or its file cannot be read.
    """
    if settings.writer_key_file is None and settings.reader_key_file is None:
        return None
    path = settings.writer_key_file if side == "writer" else settings.reader_key_file
    if path is None:
        raise ConfigurationError(f"elasticsearch.{side}_key_file is missing: the two keys go together", SETUP_HINT)
    return read_secret(path)


def connect(settings: ElasticsearchSettings, side: str) -> Connection:
    """The cluster with the key of the ``writer`` or the ``reader``; a key that is replaced in its file is taken up.

    Raises:
        ConfigurationError: see :func:`key_of`.
    """
    return Connection(settings, api_key=key_of(settings, side), renewed=lambda: key_of(settings, side))
