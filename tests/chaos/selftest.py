"""Whether the harnesses can fail: ``make faults-selftest``.

Each planted bug, one line in a copy of the program, must make the named check fail; and each check must hold without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("agent", "auditship", "indexer", "index_templates", "tests", "pyproject.toml")
SIMULATION = ("tests/model/simulation.py", "--seeds", "1500")
TIMEOUT_S = 400


class Bug(NamedTuple):
    """A planted bug: what is replaced by what in which file, and the check that must notice."""

    name: str
    file: str
    good: str
    bad: str
    check: tuple[str, ...]


BUGS = (
    Bug(
        "the checkpoint moves before the acknowledgement",
        "agent/checkpoint.py",
        "identity, mark = stream.identity, stream.acknowledged",
        "identity, mark = stream.identity, stream.position",
        SIMULATION,
    ),
    Bug(
        "the directory is not synced after a rename",
        "agent/osio.py",
        "        self.sync_directory(path.parent)\n",
        "",
        SIMULATION,
    ),
    Bug(
        "a file is known by its inode alone",
        "agent/catalogue.py",
        "if self._is_continued(record, file, first_line, size):",
        "if True:",
        SIMULATION,
    ),
    Bug(
        "a file's first block is taken without a look at its first line",
        "agent/tail.py",
        "if not stream.position.offset and not",
        "if False and not",
        SIMULATION,
    ),
    Bug(
        "ids do not depend on the line",
        "indexer/build.py",
        'stream + offset.to_bytes(8, "big") + raw',
        'stream + offset.to_bytes(8, "big")',
        ("-m", "pytest", "-q", "tests/faults/test_agent_state.py"),
    ),
    Bug(
        "failures of single items in a bulk answer are passed over",
        "indexer/store/elasticsearch/bulk.py",
        "    if status == HTTPStatus.TOO_MANY_REQUESTS:\n",
        "    if status == HTTPStatus.TOO_MANY_REQUESTS:\n        return Verdict.CREATED\n    if status == 999:\n",
        ("-m", "pytest", "-q", "tests/unit/test_bulk.py"),
    ),
)


def holds(folder: Path, check: tuple[str, ...]) -> bool:
    """Runs a check on the program in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *check], cwd=folder, env=environment, capture_output=True, check=False, timeout=TIMEOUT_S
    )
    return done.returncode == 0


def copy(folder: Path) -> Path:
    """A copy of the program."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def main() -> int:
    """Plants each bug in turn; returns how many went unnoticed."""
    unnoticed = 0
    with tempfile.TemporaryDirectory() as name:
        whole = copy(Path(name) / "whole")
        for check in dict.fromkeys(bug.check for bug in BUGS):
            if not holds(whole, check):
                raise SystemExit(f"without any bug this fails already: {' '.join(check)}")
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as name:
            folder = copy(Path(name) / "planted")
            file = folder / bug.file
            text = file.read_text()
            if text.count(bug.good) != 1:
                raise SystemExit(f"{bug.file} holds {bug.good!r} {text.count(bug.good)} times; the bug has to be planted anew")
            file.write_text(text.replace(bug.good, bug.bad))
            noticed = not holds(folder, bug.check)
            unnoticed += not noticed
            print(f"{'noticed' if noticed else 'NOT NOTICED'}: {bug.name} ({' '.join(bug.check)})", flush=True)
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
