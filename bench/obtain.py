"""Gets the peers into a private cache, ``$XDG_CACHE_HOME/auditship-bench``; needs no rights, installs nothing on the machine.

rsyslog and syslog-ng are the distribution's own packages, fetched by ``apt-get download`` and unpacked; Filebeat is built by
Go from its module. What is in the cache already is used as it is. A peer that cannot be had raises :class:`MissingError`,
which says in one sentence why, and what to do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

FILEBEAT: Final = "7.17.28"
_FETCH_S_MAX: Final = 300
_BUILD_S_MAX: Final = 1800
_SHOWN_MAX: Final = 300


class MissingError(Exception):
    """A peer that is left out; the text says why, and the remedy."""


class Peer(NamedTuple):
    """A program that can be started."""

    version: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def cache() -> Path:
    """Where the peers are kept; only this user may write there, since what is there is run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "auditship-bench"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def rsyslog() -> Peer:
    """The rsyslog daemon with omelasticsearch.

    Raises:
        MissingError: the packages cannot be had.
    """
    root = _unpacked("rsyslog", ("rsyslog", "rsyslog-elasticsearch"))
    program, modules = _one(root, "usr/sbin/rsyslogd"), _one(root, "**/omelasticsearch.so").parent
    environment = {"LD_LIBRARY_PATH": _libraries(root)}
    return Peer(_version([str(program), "-v"], environment), (str(program), "-n", "-M", str(modules)), environment)


def syslog_ng() -> Peer:
    """syslog-ng with its HTTP destination.

    Raises:
        MissingError: the packages cannot be had.
    """
    root = _unpacked("syslog-ng", ("syslog-ng-core", "syslog-ng-mod-http"))
    program, modules = _one(root, "usr/sbin/syslog-ng"), _one(root, "**/libhttp.so").parent
    command = (str(program), "--module-path", str(modules))
    environment = {"LD_LIBRARY_PATH": _libraries(root)}
    return Peer(_version([*command, "--version"], environment), (*command, "-F", "--no-caps"), environment)


def filebeat() -> Peer:
    """Filebeat without what Elastic licenses otherwise, built here.

    Raises:
        MissingError: there is no Go, or the module cannot be had or built.
    """
    program = cache() / f"filebeat-{FILEBEAT}"
    if not program.exists():
        _build(program)
    return Peer(_version([str(program), "version"], {}), (str(program),), {})


def _build(program: Path) -> None:
    """Builds in the module's own folder, since its ``go.mod`` replaces some of what it needs."""
    go = shutil.which("go")
    if go is None:
        raise MissingError("Filebeat is left out: it is built here, and there is no `go`; install Go 1.22 or later")
    remedy = "see that Go's module proxy can be reached, and that Go is 1.22 or later"
    module = f"github.com/elastic/beats/v7@v{FILEBEAT}"
    found = json.loads(_output("Filebeat", remedy, [go, "mod", "download", "-json", module], _FETCH_S_MAX, cwd=cache()))
    beside = program.with_suffix(".partial")
    build = [go, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(beside), "./filebeat"]
    _output("Filebeat", remedy, build, _BUILD_S_MAX, cwd=Path(found["Dir"]))
    beside.rename(program)


def _unpacked(name: str, packages: tuple[str, ...]) -> Path:
    """A folder with these packages and those of their dependencies that this machine lacks."""
    root = cache() / name
    if root.exists():
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise MissingError(
            f"{name} is left out: its packages are fetched with apt-get, which is not here; use Debian or Ubuntu"
        )
    remedy = "run `apt-get update` as root, and try again"
    plan = _output(name, remedy, ["apt-get", "install", "--simulate", "--no-install-recommends", *packages], _FETCH_S_MAX)
    wanted = sorted({*packages, *re.findall(r"^Inst (\S+)", plan, re.MULTILINE)})
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        debs, beside = Path(folder) / "debs", Path(folder) / "root"
        debs.mkdir()
        _output(name, remedy, ["apt-get", "download", *wanted], _FETCH_S_MAX, cwd=debs)
        for package in sorted(debs.glob("*.deb")):
            _output(name, remedy, ["dpkg-deb", "-x", str(package), str(beside)], _FETCH_S_MAX)
        beside.rename(root)
    return root


def _output(name: str, remedy: str, command: list[str], seconds_max: float, cwd: Path | None = None) -> str:
    """What a command prints; a command that fails makes its peer missing."""
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds_max, check=True
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"{name} is left out: {command[0]} took longer than {seconds_max} s; {remedy}") from None
    except subprocess.CalledProcessError as error:
        why = " ".join((error.stderr or error.stdout)[-_SHOWN_MAX:].split())
        raise MissingError(f"{name} is left out: {Path(command[0]).name} failed ({why}); {remedy}") from None
    return done.stdout


def _version(command: list[str], environment: Mapping[str, str]) -> str:
    """What the program says of itself: it is seen to start, too."""
    name = Path(command[0]).name
    remedy = f"delete {cache()}, and try again"
    said = _output(name, remedy, ["env", *(f"{key}={value}" for key, value in environment.items()), *command], 30)
    found = re.search(r"\d+(\.\d+)+", said)
    if found is None:
        raise MissingError(f"{name} is left out: it does not say its version; {remedy}")
    return found[0]


def _one(root: Path, pattern: str) -> Path:
    found = next(root.glob(pattern), None)
    if found is None:
        raise MissingError(f"{root.name} is left out: its packages hold no {pattern}; delete {root}, and try again")
    return found


def _libraries(root: Path) -> str:
    """Every folder with libraries in it, for the loader."""
    return ":".join(sorted({str(path.parent) for path in root.rglob("lib*.so.*")}))
