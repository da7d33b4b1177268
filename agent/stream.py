"""A stream: how far it was read, how far acknowledged, how far that is durable.

Three places in order, ``durable <= acknowledged <= position``. Blocks lie between the last two; the acknowledged prefix grows
only over blocks that are all done, in whatever order their receipts come. Nothing is sent beyond ``durable`` + the window, so
that after a crash it is known what may have been sent: everything that starts before the checkpoint + the window.
"""

from __future__ import annotations

from agent.block import Block
from agent.identity import START, Identity, Mark


class Stream:
    """One file's life. Only the reader's thread touches it."""

    __slots__ = (
        "acknowledged",
        "caught_up_at_s",
        "changed_ns",
        "durable",
        "ending",
        "file",
        "gateway",
        "grew_at_s",
        "halted",
        "id",
        "identity",
        "is_named",
        "is_ready",
        "listed",
        "not_before_s",
        "outstanding",
        "path",
        "peak",
        "position",
        "redelivered_until",
        "refused",
        "released",
        "rewinding",
        "scan_from",
        "sending",
        "size",
        "superseded",
        "unlisted_at_s",
    )

    def __init__(self, agent: str, identity: Identity, path: str, gateway: str, *, mark: Mark = START) -> None:
        self.identity = identity
        self.id = identity.stream(agent)
        self.path = path
        self.gateway = gateway
        self.file: int | None = None
        self.position = mark
        self.acknowledged = mark
        self.durable: int | None = None
        """The offset in the durable checkpoint; none before that counts, see :meth:`saved`."""
        self.is_named = False
        """A checkpoint has named it."""
        self.outstanding: list[Block] = []
        """At most a window of them."""
        self.sending = 0
        """Blocks whose answer is awaited."""
        self.redelivered_until = 0
        self.scan_from = 0
        """Within a line that does not fit into a block: up to where its end was looked for."""
        self.size = 0
        self.peak = 0
        """The largest size seen: what was behind the position and is gone now is a gap."""
        self.changed_ns = 0
        """The file's time of modification, as last seen."""
        self.grew_at_s = 0.0
        self.caught_up_at_s = 0.0
        """When there was last nothing that was not acknowledged."""
        self.listed = True
        self.unlisted_at_s = 0.0
        self.ending = False
        """Nobody writes to it any more: what is left without a newline is sent as it is."""
        self.released = False
        """It is no longer watched."""
        self.superseded = False
        """The file has become another stream; this one only waits for its answers."""
        self.halted = False
        """The indexer cannot take it as it is; only a person can help."""
        self.rewinding = False
        """It will be taken back to the acknowledged prefix as soon as no answer is awaited."""
        self.refused = 0
        """How often in a row it was refused."""
        self.not_before_s = 0.0
        self.is_ready = False

    def advance(self, block: Block) -> None:
        """The block was read: it is outstanding, and reading goes on behind it."""
        self.outstanding.append(block)
        self.position = block.end
        self.scan_from = block.end.offset

    def skip(self, mark: Mark) -> None:
        """Reading goes on at a mark; allowed only while nothing is outstanding."""
        assert not self.outstanding
        self.position = self.acknowledged = mark
        self.scan_from = mark.offset

    def saved(self, offset: int, *, is_whole: bool) -> bool:
        """A checkpoint has named it with this offset; false if another one has to before anything is sent.

        A generation follows from the one before it. So of an inode's second stream the checkpoint before must know as well: if
        only that one can be read after a crash, what was sent already would get another id. A whole checkpoint makes the last
        one the one before.
        """
        was_named, self.is_named = self.is_named, True
        if self.durable is None and self.identity.generation and not (was_named and is_whole):
            return False
        self.durable = offset
        return True

    def acknowledge(self, block: Block) -> bool:
        """The block is stored. Returns whether the acknowledged prefix grew."""
        block.done = True
        block.body = b""
        before = self.acknowledged
        while self.outstanding and self.outstanding[0].done:
            self.acknowledged = self.outstanding.pop(0).end
        return self.acknowledged is not before

    def rewind(self) -> int:
        """Everything behind the acknowledged prefix will be read again; returns how many bytes of bodies were let go.

        Allowed only while no answer is awaited. What had been sent counts as redelivered from now on.
        """
        assert not self.sending
        freed = sum(len(block.body) for block in self.outstanding)
        self.redelivered_until = max(self.redelivered_until, self.position.offset)
        for block in self.outstanding:
            block.stale = True
        self.outstanding.clear()
        self.position = self.acknowledged
        self.scan_from = self.position.offset
        return freed

    def saw(self, size: int) -> None:
        """The file has this size now."""
        self.size = size
        self.peak = max(self.peak, size)

    @property
    def lag_bytes(self) -> int:
        """Bytes that are not acknowledged, as last seen."""
        return max(0, self.size - self.acknowledged.offset)

    @property
    def unread(self) -> int:
        """Bytes behind the position, as last seen."""
        return self.size - self.position.offset
