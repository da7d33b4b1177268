"""Enrichment: who, where, through which pipeline, how bad, and what is hidden.

Pure look-ups (:mod:`~indexer.enrich.actor`, :mod:`~indexer.enrich.location`, :mod:`~indexer.enrich.platform`,
:mod:`~indexer.enrich.severity`), each behind a bounded cache, that give frozen objects with their JSON ready to be put into a
document. Rules are data: the ``.toml`` files beside the code. What an organisation hides (:mod:`~indexer.enrich.privacy`) is
hidden in the line before any of this.
"""
