"""Detections: rules over several events, in Sigma, run on a schedule over either store; each hit is a document of its own.

``source`` reads rule files → ``translate`` turns a Sigma detection into a query → ``rule`` and ``ruleset`` hold what was
loaded → ``engine`` counts over ``window`` what ``event`` took from documents, with ``check`` for what Sigma cannot say →
``alert`` makes the documents; ``detector`` runs all of it from its ``cursor``.
"""
