"""All tests, in two processes at once: those that need Elasticsearch, and those that do not. Both wait most of their time.

What the latter have to say is shown while they run, the former's output after it, whole. The status is 0 only if both passed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from typing import Final

KINDS: Final = ("elasticsearch", "not elasticsearch")


def begin(kind: str, output: int | None = None) -> subprocess.Popen[bytes]:
    """Starts the tests of one kind, with what pytest remembers of them apart."""
    own = ("-m", kind, "-o", f"cache_dir=.pytest_cache/{kind.replace(' ', '-')}")
    return subprocess.Popen([sys.executable, "-m", "pytest", *own], stdout=output, stderr=output and subprocess.STDOUT)


def main() -> int:
    """Runs both; if this process is asked to end, so are they."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryFile() as kept:
        aside, shown = begin(KINDS[0], kept.fileno()), begin(KINDS[1])
        try:
            failed = [shown.wait(), aside.wait()]
        finally:
            for process in (aside, shown):
                process.terminate()  # nothing happens to one that has ended
            aside.wait()
            kept.seek(0)
            sys.stdout.buffer.write(kept.read())
            sys.stdout.flush()
    return max(map(abs, failed))


if __name__ == "__main__":
    sys.exit(main())
