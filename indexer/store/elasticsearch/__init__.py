"""The Elasticsearch store: data streams ``logs-audit.{dataset}-{retention}`` of a cluster of any size.

``connection`` (one cluster, one key) → ``bulk`` (bodies and answers, pure) and ``window`` (how many, how large; pure) →
``writer``; ``question`` (queries, pure) → ``reader``. The templates that it counts on are in ``index_templates/``;
``auditship setup`` installs them.
"""

from indexer.store.elasticsearch.reader import ElasticsearchReader
from indexer.store.elasticsearch.writer import ElasticsearchWriter

__all__ = ["ElasticsearchReader", "ElasticsearchWriter"]
