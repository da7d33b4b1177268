"""Makes bodies small: each document by itself, with a dictionary of what documents have in common.

zstd with a trained dictionary of 32 KiB: some 280 bytes for a document of 2.1 KB, where each alone would take 1,000; some 4 µs
to compress and 3 µs to expand. A segment carries its dictionary with it, so that it can be read for ever, whatever later
versions bring. Made anew by ``python -m indexer.store.embedded.codec`` from sample documents.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from zstandard import ZstdCompressionDict, ZstdCompressor, ZstdDecompressor, train_dictionary

LEVEL: Final = 1
DICTIONARY_BYTES: Final = 32_768
BODY_BYTES_MAX: Final = 64 << 20
"""What a body may expand to: more is damage."""


class Codec:
    """Compresses and expands bodies with one dictionary. One thread's."""

    def __init__(self, dictionary: bytes) -> None:
        prepared = _prepared(dictionary)
        self.compress = ZstdCompressor(level=LEVEL, dict_data=prepared, write_dict_id=False).compress
        self._expand = ZstdDecompressor(dict_data=prepared).decompress

    def expand(self, data: bytes) -> bytes:
        """A body as it was.

        Raises:
            zstandard.ZstdError: it is damaged.
        """
        return self._expand(data, max_output_size=BODY_BYTES_MAX)


def shipped() -> bytes:
    """The dictionary that new segments get."""
    return files(__package__).joinpath("body.zdict").read_bytes()


@lru_cache(maxsize=8)
def _prepared(dictionary: bytes) -> ZstdCompressionDict:
    prepared = ZstdCompressionDict(dictionary)
    prepared.precompute_compress(level=LEVEL)
    return prepared


def _train(target: Path) -> None:
    """Trains a dictionary on documents made of sample lines."""
    from auditship.block import BlockHeader  # noqa: PLC0415 - for this alone
    from auditship.sample import Sample  # noqa: PLC0415
    from indexer.assemble import builder_of, places_of  # noqa: PLC0415
    from indexer.build import Block  # noqa: PLC0415
    from indexer.decode import decode_block  # noqa: PLC0415
    from indexer.enrich import demo_database  # noqa: PLC0415
    from indexer.settings import EnrichmentSettings  # noqa: PLC0415

    settings = EnrichmentSettings(city_database=demo_database.path())
    builder = builder_of(settings, places_of(settings), retention="30d")
    bodies: list[bytes | bytearray | memoryview[int]] = []
    for seed, gateway in enumerate(("web", "cli", "api")):
        data = b"".join(Sample(seed).lines(gateway, 1500))
        path, stream, digests = f"/var/log/gateways/{gateway}/{gateway}.jsonl".encode(), f"{seed:032x}", bytes(32)
        lines = data.count(b"\n")
        header = BlockHeader(
            f"gw-{seed}", f"gw-{seed}.example", gateway, path, stream, 1, len(data), lines, digests, digests, 1
        )
        block = Block.of(header, sender="", now_ms=1_795_458_000_000)
        bodies += [builder.build(block, decoded).body for decoded in decode_block(header, data)]
    target.write_bytes(train_dictionary(DICTIONARY_BYTES, bodies).as_bytes())


if __name__ == "__main__":
    _train(Path(str(files(__package__).joinpath("body.zdict"))))
