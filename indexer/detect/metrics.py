"""What the detections have done since their start, for Prometheus: ``GET /metrics`` on ``metrics_listen``.

``/healthz`` answers while the process does; ``/readyz`` while its runs succeed.

auditship_detections_runs_total                        looks at the store that came to their end
auditship_detections_failures_total                    looks that were given up; the next one does what they could not
auditship_detections_run_seconds_total                 time spent on both
auditship_detections_hits_total{rule,severity}         alerts that were new in the store
auditship_detections_lag_seconds                       for how long nothing that arrived has been looked at
auditship_detections_rules                             rules that make alerts
auditship_detections_left_out                          rules, or their files, that could not be used
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from auditship.pages import Pages
from indexer.detect.ruleset import Ruleset

_NAME = "auditship_detections_"


class Metrics:
    """The numbers.

    Args:
        rules: what is looked for.
        lag_s: for how long nothing has been looked at.
    """

    def __init__(self, rules: Ruleset, lag_s: Callable[[], float]) -> None:
        own = self._registry = CollectorRegistry()
        self.is_ready = True
        self._runs = Counter(f"{_NAME}runs", "Looks at the store that came to their end.", registry=own)
        self._failures = Counter(f"{_NAME}failures", "Looks that were given up, and done by the next.", registry=own)
        self._run_s = Counter(f"{_NAME}run_seconds", "Time spent on looks.", registry=own)
        self._hits = Counter(f"{_NAME}hits", "Alerts that were new in the store.", ["rule", "severity"], registry=own)
        lag = Gauge(f"{_NAME}lag_seconds", "For how long nothing that arrived has been looked at.", registry=own)
        lag.set_function(lag_s)
        Gauge(f"{_NAME}rules", "Rules that make alerts.", registry=own).set(len(rules.alerting()))
        Gauge(f"{_NAME}left_out", "Rules, or their files, that could not be used.", registry=own).set(len(rules.problems))

    def ran(self, took_s: float, *, failed: bool) -> None:
        """A run ended."""
        self.is_ready = not failed
        (self._failures if failed else self._runs).inc()
        self._run_s.inc(took_s)

    def hit(self, rule: str, severity: str) -> None:
        """An alert was stored."""
        self._hits.labels(rule, severity).inc()

    def pages(self, listen: str) -> Pages:
        """Serves them.

        Raises:
            ConfigurationError: it cannot listen there.
        """
        return Pages(
            listen,
            {
                "/metrics": lambda: (200, generate_latest(self._registry)),
                "/healthz": lambda: (200, b"ok\n"),
                "/readyz": lambda: (200, b"ready\n") if self.is_ready else (503, b"the last look was given up\n"),
            },
        )
