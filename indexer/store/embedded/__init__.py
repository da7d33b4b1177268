"""The embedded store: nothing to install, nothing to run. One SQLite file per UTC day of arrival and retention class.

:mod:`~indexer.store.embedded.segment` is such a file, :mod:`~indexer.store.embedded.writer` adds to today's,
:mod:`~indexer.store.embedded.reader` finds in all of them, :mod:`~indexer.store.embedded.expiry` deletes whole files.
"""

from indexer.store.embedded.expiry import EmbeddedExpirer
from indexer.store.embedded.reader import EmbeddedReader
from indexer.store.embedded.writer import EmbeddedWriter

__all__ = ["EmbeddedExpirer", "EmbeddedReader", "EmbeddedWriter"]
