"""Puts on record that the rules changed: by which configuration an indexer works, whenever it is another one than before.

The document (dataset ``access``, action ``audit.configuration``) has the SHA-256 of the configuration file, of the severity
rules and of the organisations' policies, and which of them are new. What was recorded last is looked up in the store itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from contextlib import closing
from pathlib import Path

from msgspec.json import decode

from auditship import clock
from auditship.errors import AuditshipError
from indexer.record import ACCESS, Access, Maker, store, this_user
from indexer.settings import IndexerSettings
from indexer.store.contract import Query, Reader
from indexer.store.select import open_reader

ACTION = "audit.configuration"
_log = logging.getLogger("auditship.indexer")


def record_configuration(settings: IndexerSettings, config: Path | None) -> threading.Thread:
    """Records the configuration, if it is another one, in a thread: a store that does not answer holds nothing up."""
    thread = threading.Thread(target=_record, args=(settings, config), name="configuration", daemon=True)
    thread.start()
    return thread


def _record(settings: IndexerSettings, config: Path | None) -> None:
    try:
        now = _digests(settings, config)
        with closing(open_reader(settings)) as reader:
            before = _recorded(reader)
        changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if not changed:
            return
        access = Access(
            ACTION,
            this_user("indexer"),
            {"changed": changed, "sha256": now},
            "warning",
            ("configuration", "change"),
            "configuration",
        )
        refused = asyncio.run(store(settings, Maker.of(settings).entry(access, clock.now_ms())))
    except (AuditshipError, OSError) as error:
        refused = str(error)
    if refused:
        _log.warning("that the configuration changed could not be recorded: %s", refused)


def _digests(settings: IndexerSettings, config: Path | None) -> dict[str, str]:
    files = {
        "configuration": config,
        "severity_rules": settings.enrichment.severity_rules,
        "organizations": settings.enrichment.organizations,
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path is not None}


def _recorded(reader: Reader) -> dict[str, str]:
    """The digests that were recorded last."""
    hits = reader.search(Query(datasets=(ACCESS,), action=ACTION), limit=1).hits
    found = decode(hits[0].body)["audit"]["extra"].get("sha256") if hits else None
    return found if isinstance(found, dict) else {}
