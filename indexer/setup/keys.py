"""The two API keys, the writer's, which can only create, and the reader's, each alone in a file that the configuration names.

Keys are never shown, and a file is never without one: a new one is written beside it and takes its place.

Raises :class:`~indexer.setup.change.SetupError` naming the cluster, what was being done, and the remedy.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import index_templates
from auditship.errors import ConfigurationError
from auditship.settings import read_secret
from indexer.settings import ElasticsearchSettings
from indexer.setup.administrator import Administrator, decoded
from indexer.setup.change import Change, SetupError
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.connection import Connection, key_of


class Keys:
    """The keys of one configuration, made and taken back by an administrator.

    Args:
        administrator: asks the cluster.
        settings: names the two files.
        dry_run: look, change nothing.
    """

    def __init__(self, administrator: Administrator, settings: ElasticsearchSettings, *, dry_run: bool = False) -> None:
        self._administrator = administrator
        self._settings = settings
        self._dry_run = dry_run

    def ensure(self) -> Iterator[Change]:
        """Keys that are there and good: what stands in a file is tried, and made where there is no file."""
        for wanted, path in self._wanted():
            yield self._key(path, wanted)

    def _wanted(self) -> list[tuple[Mapping[str, Any], Path]]:
        """What each key may do, and its file, of those that have one."""
        files = {"audit-writer": self._settings.writer_key_file, "audit-reader": self._settings.reader_key_file}
        keys = index_templates.load("api_keys").items()
        return [(wanted, path) for name, wanted in keys if (path := files[name]) is not None]

    def rotate(self) -> Iterator[Change]:
        """New keys in place of those in the files. The old ones stay good until :meth:`revoke`.

        A running indexer takes the new key up when the cluster knows the old one no more, without losing a line: the files
        keep their owner, group and mode.
        """
        keys = self._wanted()
        for _, path in keys if not self._dry_run else ():
            _beside(path).unlink(missing_ok=True)
            _new_file(_beside(path), like=path)
        for wanted, path in keys:
            if not self._dry_run:
                self._make_key(_beside(path), wanted)
                _replace(path)
            yield Change("api_keys", f"{wanted['name']} in {path}", "replaced")

    def revoke(self) -> Iterator[Change]:
        """Takes back every key of ours but those that stand in the files.

        Raises:
            ConfigurationError: a file is not named, or cannot be read: its key would be taken back too.
        """
        current = {_key_id(self._settings, side) for side in ("writer", "reader")}
        for name in sorted(wanted["name"] for wanted in index_templates.load("api_keys").values()):
            known = self._administrator.get(f"/_security/api_key?name={name}&active_only=true").get("api_keys", [])
            old = [each["id"] for each in known if each["id"] not in current]
            if old and not self._dry_run:
                self._administrator.call("DELETE", "/_security/api_key", {"ids": old})
            for each in old:
                yield Change("api_keys", f"{name} {each}", "taken back")

    def _key(self, path: Path, wanted: Mapping[str, Any]) -> Change:
        """The key in a file: checked if it is there, else made and written for its owner's eyes only."""
        name = f"{wanted['name']} in {path}"
        if path.exists():
            with_key = Connection(self._settings, api_key=read_secret(path))
            try:
                with_key.call("GET", "/_security/_authenticate")
            except Unavailable as error:
                raise SetupError(
                    error.what, f"If the key in {path} is no longer good, remove the file and run again."
                ) from None
            finally:
                with_key.close()
            return Change("api_keys", name, "unchanged")
        if not self._dry_run:
            _new_file(path)
            self._make_key(path, wanted)
        return Change("api_keys", name, "created")

    def _make_key(self, path: Path, wanted: Mapping[str, Any]) -> None:
        """A new key in an empty file, which does not outlive a failure."""
        made = ""
        try:
            with path.open("w") as file:
                answer = decoded(self._administrator.call("POST", "/_security/api_key", wanted))
                made = answer["id"]
                file.write(f"{answer['encoded']}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink()
            hint = f"The key {made} was made and is in no file: --revoke-old-keys takes it back." if made else ""
            raise SetupError(f"{path}: {error.strerror}", hint) from None
        except BaseException:
            path.unlink()
            raise


def _new_file(path: Path, *, like: Path | None = None) -> None:
    """An empty file for its owner's eyes only; of the same owner and group as another one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "Its folder must exist and be writable.") from None
    try:
        there, wanted = os.fstat(file), os.fstat(file) if like is None else like.stat()
        if (there.st_uid, there.st_gid) != (wanted.st_uid, wanted.st_gid):
            os.fchown(file, wanted.st_uid, wanted.st_gid)
    except OSError as error:
        path.unlink()
        raise SetupError(f"{path}: cannot be given to the owner of {like}: {error.strerror}", "Run this as root.") from None
    finally:
        os.close(file)


def _beside(path: Path) -> Path:
    """Where a file is written that will replace another one."""
    return path.with_name(path.name + ".new")


def _replace(path: Path) -> None:
    """Puts the file beside it in the place of another one, for whoever could read that."""
    try:
        _beside(path).chmod(stat.S_IMODE(path.stat().st_mode))
        _beside(path).replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be replaced: {error.strerror}", f"The new key is in {_beside(path)}.") from None


def _key_id(settings: ElasticsearchSettings, side: str) -> str:
    """The id of the key that stands in a side's file."""
    key = key_of(settings, side)
    if key is None:
        raise ConfigurationError("no key files are named: every key would be taken back", "Name both in [elasticsearch].")
    try:
        return base64.b64decode(key, validate=True).decode().partition(":")[0]
    except ValueError:
        raise ConfigurationError(f"elasticsearch.{side}_key_file: holds no API key") from None
