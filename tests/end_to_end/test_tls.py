"""Between machines: TLS, tokens and client certificates; whoever is not proven gets nothing, and nothing is lost by it."""

from __future__ import annotations

import secrets
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority
from product import Product
from shipping import append, lines, until

from auditship.sample import Sample
from indexer.access import token_hash

pytestmark = pytest.mark.program("openssl")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder, "authority")


@pytest.fixture
def product(tmp_path: Path, authority: Authority) -> Iterator[Product]:
    home = tmp_path / "home"
    home.mkdir()
    with Product(home, agent="refused_interval_s = 0.2\nretry_interval_max_s = 0.2\ngive_up_s = 3") as product:
        certificate, key = authority.sign("server")
        config = home / "indexer.toml"
        config.write_text(f'certificate_file = "{certificate}"\ncertificate_key_file = "{key}"\n{config.read_text()}')
        product.url = product.url.replace("http:", "https:")
        configure(product, ca_file=authority.certificate)
        yield product


def configure(product: Product, **keys: object) -> None:
    """Sets keys of the agent's ``[indexer]``."""
    config = product.home / "agent.toml"
    table = "".join(f'{name} = "{value}"\n' for name, value in keys.items())
    before, _, after = config.read_text().partition("[indexer]\n")
    watches = after[after.index("[[watch]]") :]
    config.write_text(f'{before}[indexer]\nurls = ["https://localhost:{product.port}"]\n{table}{watches}')


def start_indexer(product: Product) -> None:
    product.start("indexer", "--config", "indexer.toml")
    until(lambda: "Uvicorn running" in product.said("indexer"), lambda: product.said("indexer"))


def refused(product: Product, words: str) -> None:
    """The agent ships nothing, says why, and keeps its lines."""
    assert product.start("agent", "--config", "agent.toml", "--once").wait(60) == 1
    assert words in product.said("agent")
    assert product.export() == []


def test_lines_are_shipped_over_tls_to_a_proven_indexer(product: Product) -> None:
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 50)))
    start_indexer(product)
    product.ship()
    assert len(product.export()) == 50


def test_an_indexer_that_another_authority_vouches_for_gets_nothing(product: Product, authority: Authority) -> None:
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 50)))
    start_indexer(product)
    configure(product, ca_file=Authority(authority.folder, "stranger").certificate)
    refused(product, "CERTIFICATE_VERIFY_FAILED")
    configure(product, ca_file=authority.certificate)
    product.ship()
    assert len(product.export()) == 50, "nothing was lost by it"


def test_an_indexer_of_another_name_gets_nothing(product: Product, authority: Authority) -> None:
    certificate, key = authority.sign("other", "elsewhere.example")
    extensions = product.home / "indexer.toml"
    text = extensions.read_text().replace("server.pem", certificate.name).replace("server.key", key.name)
    extensions.write_text(text)
    append(product.logs / "web.jsonl", lines(0, 5))
    start_indexer(product)
    refused(product, "CERTIFICATE_VERIFY_FAILED")


def test_where_certificates_are_asked_for_an_agent_without_one_gets_nowhere(product: Product, authority: Authority) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f'client_ca_file = "{authority.certificate}"\n{config.read_text()}')
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 50)))
    start_indexer(product)
    refused(product, "tried again until it works")
    certificate, key = authority.sign("agent", "gw-1")
    configure(product, ca_file=authority.certificate, client_certificate=certificate, client_key=key)
    product.ship()
    assert len(product.export()) == 50


def test_a_token_is_asked_for_and_is_for_its_gateways_and_organisations_only(product: Product, authority: Authority) -> None:
    token = product.home / "token"
    secret = secrets.token_urlsafe(32)
    token.write_text(f"{secret}\n")
    token.chmod(0o600)
    hashed = token_hash(secret)
    config = product.home / "indexer.toml"
    agents = f'[[agents]]\nname = "gw-1"\ntoken_sha256 = "{hashed}"\ngateways = ["web"]\norganizations = ["org-0001"]\n'
    config.write_text(config.read_text() + agents)
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 50)))
    append(product.logs / "cli.jsonl", list(Sample(2).lines("cli", 50)))
    start_indexer(product)
    refused(product, "401")
    configure(product, ca_file=authority.certificate, token_file=token)
    assert product.start("agent", "--config", "agent.toml", "--once").wait(60) == 1, "not for cli"
    assert "is not for gateway 'cli'" in product.said("agent")
    found = product.export()
    assert len(found) == 50
    events = [each for each in found if each["event"]["kind"] == "event"]
    assert {each["organization"]["id"] for each in events} == {"org-0001"}
    assert {each["agent"]["name"] for each in found} == {"gw-1"}
    others = [each["audit"]["rejection"] for each in found if each["event"]["kind"] != "event"]
    assert {each["pointer"] for each in others} == {"/organization/id"}
    assert secret not in product.said("agent") + product.said("indexer")


def test_a_certificate_that_was_replaced_is_shown_to_the_next_client_without_a_restart(
    product: Product, authority: Authority
) -> None:
    start_indexer(product)
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 5)))
    product.ship()
    before = ssl.get_server_certificate(("localhost", product.port))
    authority.sign("server")
    until(lambda: ssl.get_server_certificate(("localhost", product.port)) != before, lambda: product.said("indexer"))
    renewed = ssl.get_server_certificate(("localhost", product.port))
    (authority.folder / "server.key").write_text("no key")
    until(lambda: "the certificate from before is still in use" in product.said("indexer"), lambda: product.said("indexer"))
    assert ssl.get_server_certificate(("localhost", product.port)) == renewed
    append(product.logs / "web.jsonl", list(Sample(2).lines("web", 5)))
    product.ship()
    assert len(product.export()) == 10


def test_an_agent_takes_its_own_renewed_certificate_and_another_authority_without_a_restart(
    product: Product, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    other = Authority(folder, "other")
    certificate, key = other.sign("client")
    config = product.home / "indexer.toml"
    config.write_text(f'client_ca_file = "{authority.certificate}"\n{config.read_text()}')
    configure(product, ca_file=authority.certificate, client_certificate=certificate, client_key=key)
    start_indexer(product)
    append(product.logs / "web.jsonl", list(Sample(1).lines("web", 5)))
    product.start_agent()
    until(lambda: "localhost" in product.said("agent"), lambda: product.said("agent"))
    assert product.export() == []
    good, good_key = authority.sign("client")
    key.write_bytes(good_key.read_bytes())
    certificate.write_bytes(good.read_bytes())
    product.await_stored(5)


def test_certificates_of_clients_that_are_asked_for_at_a_reload_are_asked_for_by_all_workers(
    product: Product, authority: Authority
) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 2\n{config.read_text()}")
    indexer = product.start("indexer", "--config", "indexer.toml")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    until(lambda: is_served(product, context), lambda: product.said("indexer"))
    config.write_text(f'client_ca_file = "{authority.certificate}"\n{config.read_text()}')
    indexer.send_signal(signal.SIGHUP)
    log = product.home / "indexer.log"
    until(lambda: log.read_text().count("Finished server process") == 2, lambda: product.said("indexer"))
    assert not is_served(product, context)
    context.load_cert_chain(*authority.sign("agent", "gw-1"))
    assert is_served(product, context)


def is_served(product: Product, context: ssl.SSLContext) -> bool:
    """Whether a client of that kind is answered."""
    try:
        with urllib.request.urlopen(f"https://localhost:{product.port}/healthz", timeout=10, context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
