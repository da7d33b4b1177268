"""One Elasticsearch process (with its launcher, in a process group of their own) and its directory.

It dies with the thread that launched it: the kernel kills the launcher then, and the server ends when its standard input,
which the launcher held, is closed. So launch from a thread that lives as long as the tests do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from elasticsearch_node.install import java_home

USER = "admin"
RUN_AS = "nobody"
STOP_TIMEOUT_S = 20.0

# Chosen by timing: the first compiler tier only boots fastest, and untouched heap pages cost no memory.
BOOTS_FAST = "-Xms256m\n-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1"
# What the server is shipped with, its whole heap from the beginning included: code of the first tier alone needs more than
# twice the CPU for the same documents. Compiler threads stay, so that what they have used can be read at any time.
AS_SHIPPED = "-Xms{heap}\n-XX:+UseG1GC\n-XX:-UseDynamicNumberOfCompilerThreads"
JVM_OPTIONS = """-Xmx{heap}
{jvm}
-XX:-AlwaysPreTouch
-XX:+ExitOnOutOfMemoryError
-XX:ErrorFile={home}/logs/hs_err_pid%p.log
-Djava.io.tmpdir=${{ES_TMPDIR}}
-Dorg.apache.lucene.store.defaultReadAdvice=normal
-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1
"""

LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] [%node_name]%marker %m%consoleException%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


@dataclass
class Node:
    """A node: ``launch`` after ``configure``; ``stop`` or ``kill``; ``launch`` again on the data it left."""

    name: str
    directory: Path
    port: int
    transport_port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def launched(self) -> bool:
        """Whether it should be running."""
        return self._process is not None

    def configure(self, settings: Mapping[str, object], heap: str, password: str, jvm: str = BOOTS_FAST) -> None:
        """Writes the configuration into the empty directory."""
        config = self.directory / "config"
        for part in ("config", "data", "logs", "tmp"):
            (self.directory / part).mkdir(parents=True)
        (config / "elasticsearch.yml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        (config / "jvm.options").write_text(JVM_OPTIONS.format(heap=heap, home=self.directory, jvm=jvm.format(heap=heap)))
        (config / "log4j2.properties").write_text(LOGGING)
        (config / "users").write_text(f"{USER}:{_password_hash(password)}\n")
        (config / "users_roles").write_text(f"superuser:{USER}\n")
        for empty in ("roles.yml", "role_mapping.yml"):
            (config / empty).touch()

    def launch(self, home: Path) -> None:
        """Starts the process, as ``nobody`` where we are root: the server refuses to run as root."""
        account = ["--reuid", RUN_AS, "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "ES_JAVA_HOME": str(java_home()),
            "ES_PATH_CONF": str(self.directory / "config"),
            "ES_TMPDIR": str(self.directory / "tmp"),
            "CLI_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
        }
        with (self.directory / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *account, "--", home / "bin" / "elasticsearch"],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """Asks the server to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Asks the server to end, and kills it if it has not within :data:`STOP_TIMEOUT_S`."""
        self.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.kill()

    def kill(self) -> None:
        """kill -9 of the whole process group, at once."""
        if self._process is None:
            return
        group = self._process.pid
        if group_members(group):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        while group_members(group):
            time.sleep(0.02)
        self._process = None

    def log_tail(self, lines: int = 15) -> str:
        """The end of what it logged."""
        return "\n".join((self.directory / "node.log").read_text(errors="replace").splitlines()[-lines:])

    def pids(self) -> list[int]:
        """Server and launcher."""
        return [] if self._process is None else group_members(self._process.pid)


def group_members(group: int) -> list[int]:
    """The live processes of a process group."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(found) == group and state != "Z":
            members.append(int(stat.parent.name))
    return members


def _password_hash(password: str) -> str:
    """In the server's own PBKDF2 form for its users file."""
    salt = secrets.token_bytes(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 10_000, 32)
    return f"{{PBKDF2}}10000${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
