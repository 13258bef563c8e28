"""Figures of a running server, in Prometheus' format and with names like vLLM's.

Knows nothing of HTTP. Every server has a registry of its own, so that two may live in one process.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ringfence.events import Cost
from ringfence.server.admission import Admission

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)


class Metrics:
    """Gauges read the admission; the rest is told by the jobs."""

    def __init__(self, admission: Admission) -> None:
        """All counters at zero."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._gauge("num_requests_running", "Requests being decoded.").set_function(
            lambda: admission.running
        )
        self._gauge("num_requests_waiting", "Requests in the queue.").set_function(
            lambda: admission.waiting
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "From the request to the first committed text."
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From the request to the end of its last reply."
        )
        self._requests = self._counter(
            "requests", "Requests by how they ended: done, failed, gone or rejected.", "outcome"
        )
        self._finished = self._counter(
            "replies", "Replies by why they ended: stop, length, refused or left.", "reason"
        )
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.")
        self._committed = self._counter("committed_tokens", "Tokens shown to clients.")
        self._drafted = self._counter("drafted_tokens", "Tokens sampled, kept or not.")
        self._judged = self._counter("judged_tokens", "Tokens processed for verdicts.")
        self._rewinds = self._counter("rewinds", "Times that rejected tokens were dropped.")
        self._refusals = self._counter("refusals", "Replies refused at an exhausted budget.")
        for outcome in ("done", "failed", "gone", "rejected"):
            self._requests.labels(outcome)

    def text(self) -> bytes:
        """Everything, for /metrics."""
        return generate_latest(self._registry)

    def prompt(self, tokens: int) -> None:
        """A prompt was accepted."""
        self._prompt.inc(tokens)

    def first_text(self, seconds: float) -> None:
        """A request got its first committed text."""
        self._first.observe(seconds)

    def reply(self, reason: str, cost: Cost) -> None:
        """A reply ended, or was left; then the cost is what is known of it."""
        self._finished.labels(reason).inc()
        self._refusals.inc(reason == "refused")
        self._committed.inc(cost.committed)
        self._drafted.inc(cost.drafted)
        self._judged.inc(cost.judged)
        self._rewinds.inc(cost.rewinds)

    def request(self, outcome: str, seconds: float | None = None) -> None:
        """A request ended; the time counts where it was decoded to the end."""
        self._requests.labels(outcome).inc()
        if seconds is not None:
            self._whole.observe(seconds)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"ringfence:{name}", text, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"ringfence:{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"ringfence:{name}", text, buckets=_SECONDS, registry=self._registry)
