"""Enrichment: who, where, through which pipeline, and how bad.

Pure look-ups (:mod:`~indexer.enrich.actor`, :mod:`~indexer.enrich.location`, :mod:`~indexer.enrich.platform`,
:mod:`~indexer.enrich.severity`), each behind a bounded cache, that give frozen objects with their JSON ready to be put into a
document. Rules are data: the ``.toml`` files beside the code.
"""
