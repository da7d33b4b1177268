"""A stream as an agent would send it: the headers of one block after another, each chained to the one before."""

from __future__ import annotations

import time

from auditship.block import CHAIN_START, BlockHeader, chain_next, digest, first_line_digest, stream_id


class Stream:
    """One file of one agent. A block counts as sent once it was made."""

    def __init__(self, agent: str, gateway: str) -> None:
        self._agent = agent
        self._gateway = gateway
        self._id = ""
        self._offset = 0
        self._chain = CHAIN_START

    def block(self, data: bytes) -> BlockHeader:
        """The header of the next block, of these whole lines."""
        self._id = self._id or stream_id(self._agent, 1, 1, 0, first_line_digest(data.partition(b"\n")[0] + b"\n"))
        hashed = digest(data)
        self._chain = chain_next(self._chain, hashed)
        header = BlockHeader(
            agent=self._agent,
            host=self._agent,
            gateway=self._gateway,
            path=f"/var/log/gateways/{self._gateway}/{self._gateway}.jsonl".encode(),
            stream=self._id,
            offset=self._offset,
            length=len(data),
            lines=data.count(b"\n"),
            digest=hashed,
            chain=self._chain,
            created_ms=time.time_ns() // 1_000_000,
        )
        self._offset += len(data)
        return header
