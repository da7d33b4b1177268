"""Whether the harnesses can fail: ``make faults-selftest``.

Each planted bug, one line in a copy of the program, must make the harness, as CI runs it, name a line that was lost or stored
twice; and without one it must find nothing. A harness that fails in any other way, or does not end, decides nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("agent", "auditship", "indexer", "index_templates", "tests", "pyproject.toml")
SLICE = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/model/test_model.py")
"""The harness exactly as CI runs it: the fixed seeds, as many fresh ones, and Hypothesis."""
FOUND = re.compile(r"AssertionError: ((?:lost|stored).*)")
"""How the harness says that a promise is broken; any other failure is none of its findings."""
TIMEOUT_S = 600


class Bug(NamedTuple):
    """A planted bug: what is replaced by what in which file."""

    name: str
    file: str
    good: str
    bad: str


BUGS = (
    Bug(
        "the checkpoint moves before the acknowledgement",
        "agent/checkpoint.py",
        "identity, mark = stream.identity, stream.acknowledged",
        "identity, mark = stream.identity, stream.position",
    ),
    Bug(
        "the directory is not synced after a rename",
        "agent/osio.py",
        "        self.sync_directory(path.parent)\n",
        "",
    ),
    Bug(
        "a file is known by its inode alone",  # its first line counts nowhere: each look at it alone is backed up by another
        "auditship/block.py",
        'hashlib.blake2b(line[:FIRST_LINE_BYTES_MAX], digest_size=16, person=b"auditship-line1")',
        'hashlib.blake2b(line[:0], digest_size=16, person=b"auditship-line1")',
    ),
    Bug(
        "a file's first block is taken without a look at its first line",
        "agent/tail.py",
        "if not stream.position.offset and not",
        "if False and not",
    ),
    Bug(
        "an inode's second stream is sent before both checkpoints name it",
        "agent/stream.py",
        "if self.durable is None and self.identity.generation and",
        "if False and self.identity.generation and",
    ),
    Bug(
        "ids do not depend on the line",
        "indexer/identity.py",
        'each.update(offset.to_bytes(8, "big") + digest)',
        'each.update(offset.to_bytes(8, "big"))',
    ),
    Bug(
        "failures of single items in a bulk answer are passed over",
        "indexer/store/elasticsearch/bulk.py",
        "    if status == HTTPStatus.TOO_MANY_REQUESTS:\n",
        "    if status == HTTPStatus.TOO_MANY_REQUESTS:\n        return Verdict.CREATED\n    if status == 999:\n",
    ),
)


def finding(folder: Path) -> str:
    """What the harness finds in the program in a folder; empty if it finds nothing.

    Raises:
        SystemExit: it could not tell; its last words are printed.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(
            [sys.executable, *SLICE],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"undecided: the harness took more than {TIMEOUT_S} s") from None
    found = FOUND.search(done.stdout)
    if done.returncode == pytest.ExitCode.OK:
        return ""
    if done.returncode != pytest.ExitCode.TESTS_FAILED or not found:
        raise SystemExit(f"undecided: the harness failed without finding a line lost or stored twice:\n{done.stdout[-4000:]}")
    return found[1]


def copy(folder: Path) -> Path:
    """A copy of the program."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def plant(bug: Bug, folder: Path) -> None:
    """Puts the bug into a copy of the program."""
    file = folder / bug.file
    text = file.read_text()
    if text.count(bug.good) != 1:
        raise SystemExit(f"{bug.file} holds {bug.good!r} {text.count(bug.good)} times; the bug has to be planted anew")
    file.write_text(text.replace(bug.good, bug.bad))


def main() -> int:
    """Plants each bug in turn; returns how many went unnoticed."""
    unnoticed = 0
    for bug in (None, *BUGS):
        with tempfile.TemporaryDirectory() as name:
            folder = copy(Path(name) / "program")
            if bug is not None:
                plant(bug, folder)
            found = finding(folder)
        if bug is None:
            if found:
                raise SystemExit(f"without any bug this is found already: {found}")
            print("nothing is found without a bug", flush=True)
            continue
        unnoticed += not found
        print(f"{'noticed' if found else 'NOT NOTICED'}: {bug.name}{': ' if found else ''}{found[:160]}", flush=True)
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
