"""The agent: finds log files, tails them, ships whole lines in blocks, and remembers what has been acknowledged.

The way of a line through these files: :mod:`~agent.discover` finds the file, :mod:`~agent.identity` tells which stream it is,
:mod:`~agent.tail` reads whole lines (:mod:`~agent.frame`) into a :mod:`~agent.block`, :mod:`~agent.ship` sends it, and
:mod:`~agent.stream` and :mod:`~agent.checkpoint` remember the acknowledged prefix. :mod:`~agent.reader` is the loop that owns
all of that state, :mod:`~agent.run` puts the parts together.
"""
