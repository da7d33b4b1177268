"""Tells people: follows critical events and detections in the store, once per cause, until it is delivered.

``follow`` reads what has arrived, ``cause`` decides what is worth a message, ``outbox`` keeps it durably together with the
place that was reached, ``deliver`` and ``channel/`` bring it to people, ``escalate`` sees that somebody gets it.
"""
