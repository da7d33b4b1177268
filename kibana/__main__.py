"""``python -m kibana``: builds ``audit.ndjson`` beside its source."""

from __future__ import annotations

from pathlib import Path

from kibana import BUILT, build

if __name__ == "__main__":
    Path(__file__).with_name(BUILT).write_bytes(build())
