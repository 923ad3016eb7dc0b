"""Every metric that there is, by name: the one list that dashboards, alerts and the docs are held to.

A process shows those of the services that run in it: an alert for a service that is gone fires because its metrics are.

Counters and histograms are counted where things happen, at a microsecond each and whether or not anybody looks. A
:class:`Reading` is asked for its value when somebody does, from the thread that answers (:mod:`nanobatch_runtime.observing`):
its sources read what is in memory, and neither wait nor ask a database. No label holds an id, a text of a user's or
anything else without bounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
REGISTRY = CollectorRegistry(auto_describe=True)
"""What this process shows."""

Source: TypeAlias = Callable[[], Mapping[tuple[str, ...], float]]
"""Gives values by the values of the labels. Called from another thread than the loop's."""

# Seconds. A picture takes 3 to 60, a wait in the queue up to hours, a call of ours milliseconds.
_CALL_SECONDS = (0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 300)
_QUEUE_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_RPC_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_EVENT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)


class Part(Collector):
    """The metrics of one service: without it in this process they are not there, instead of 0."""

    def __init__(self) -> None:
        """Make it part of the registry."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._running = 0
        REGISTRY.register(self)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show them while the context, the service's, is open."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        return self.registry.collect() if self._running else ()


class Reading(Collector):
    """A gauge that is read when somebody looks: the sum over its sources, by labels. Without a source it is not there."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        """Make it part of the registry."""
        self.name = name
        self._text = text
        self.label_names = tuple(labels)
        self._sources: list[Source] = []
        REGISTRY.register(self)

    @contextmanager
    def of(self, source: Source) -> Iterator[None]:
        """Read ``source`` while the context is open."""
        self._sources.append(source)
        try:
            yield
        finally:
            self._sources.remove(source)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name it without reading it."""
        yield GaugeMetricFamily(self.name, self._text, labels=self.label_names)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read it."""
        totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for source in tuple(self._sources):
            for values, value in source().items():
                totals[values] += value
        family = GaugeMetricFamily(self.name, self._text, labels=self.label_names)
        for values, value in sorted(totals.items()):
            family.add_metric(values, value)
        if totals:
            yield family


# The process

ProcessCollector(registry=REGISTRY)
LOOP_LAG = Reading("nanobatch_loop_lag_seconds", "Longest time that the event loop stood still, of the last 30 s")
TASKS = Reading("nanobatch_tasks", "Tasks of the event loop that have not ended")
REDIS_UP = Reading(
    "nanobatch_redis_up", "1 while Redis answers, 0 while it does not; not there without one", ["service"]
)

# Calls that are served

RPCS = Counter(
    "nanobatch_rpcs", "gRPC calls that have ended, by their status", ["service", "method", "code"], registry=REGISTRY
)
RPC_SECONDS = Histogram(
    "nanobatch_rpc_seconds",
    "How long gRPC calls took that answer once; LeaseResults waits for work",
    ["service", "method"],
    buckets=_RPC_SECONDS,
    registry=REGISTRY,
)
RPCS_RUNNING = Gauge(
    "nanobatch_rpcs_running",
    "gRPC calls that are being served, streams included",
    ["service", "method"],
    registry=REGISTRY,
)

# The gateway

GATEWAY = Part()
HTTP_REQUESTS = Counter(
    "nanobatch_http_requests",
    "Requests at the gateway's HTTP port, by status",
    ["route", "code"],
    registry=GATEWAY.registry,
)
WATCHERS = Gauge(
    "nanobatch_watchers", "Clients that watch a run at this gateway, over gRPC and HTTP", registry=GATEWAY.registry
)
EVENT_LAG = Histogram(
    "nanobatch_event_lag_seconds",
    "From the commit of a change to its being sent to a watcher",
    buckets=_EVENT_SECONDS,
    registry=GATEWAY.registry,
)

# The generator

GENERATOR = Part()
_WHAT = ("provider", "model")
LEASES_HELD = Reading("nanobatch_leases_held", "Results that this generator works on, by how far it is", ["phase"])
LEASES_LOST = Counter(
    "nanobatch_leases_lost", "Leases that somebody else may have taken over", registry=GENERATOR.registry
)
SLOTS = Reading("nanobatch_slots", "Calls that this generator makes at a time at most")
ATTEMPTS = Counter(
    "nanobatch_attempts",
    "Attempts that a generator saw end: COMPLETED or the class of the failure, and whether it was charged",
    [*_WHAT, "outcome", "charged"],
    registry=GENERATOR.registry,
)
CALL_SECONDS = Histogram(
    "nanobatch_call_seconds",
    "From a call's start to the provider's picture, calls without one left out",
    _WHAT,
    buckets=_CALL_SECONDS,
    registry=GENERATOR.registry,
)
COST_MICROS = Counter(
    "nanobatch_cost_micros",
    "Millionths of a dollar, by reported usage and the catalogue's prices",
    _WHAT,
    registry=GENERATOR.registry,
)

# Storage

STORAGE = Part()
LEASES = Counter("nanobatch_leases", "Leases given out", _WHAT, registry=STORAGE.registry)
QUEUE_WAIT = Histogram(
    "nanobatch_queue_wait_seconds",
    "From when a result could have been leased to its lease",
    _WHAT,
    buckets=_QUEUE_SECONDS,
    registry=STORAGE.registry,
)
QUEUE_READY = Reading("nanobatch_queue_ready", "Results that wait, and could run now if there were room", _WHAT)
QUEUE_WANTED = Reading(
    "nanobatch_queue_wanted", "Calls that could be in flight at once: ready or leased, inside each key's window", _WHAT
)
QUEUE_OLDEST = Reading("nanobatch_queue_oldest_seconds", "How long the oldest ready result has been ready", _WHAT)
QUEUE_OVERDUE = Reading(
    "nanobatch_queue_overdue_seconds", "For how long the oldest lease that ran out could have been taken over", _WHAT
)
CREDENTIALS_COOLING = Reading(
    "nanobatch_credentials_cooling",
    "Keys, by model, whose runs wait because their provider said so",
    [*_WHAT, "reason"],
)
QUEUE_AGE = Reading("nanobatch_queue_age_seconds", "Since when the figures of the queue are what they are")
CLOCK_OFFSET = Reading(
    "nanobatch_clock_offset_seconds", "By how much the database's clock is ahead of this machine's; below 0: behind"
)
DATABASE_CONNECTIONS = Reading("nanobatch_database_connections", "Connections to the database that are in use")
DATABASE_LIMIT = Reading("nanobatch_database_connections_limit", "Connections to the database that may be in use")


_OURS = [each for each in tuple(globals().values()) if isinstance(each, Counter | Gauge | Histogram | Reading)]


def types() -> dict[str, str]:
    """Return the type of each metric of ours, by the name that a query has for it; parts of a histogram add theirs."""
    families = [family for each in _OURS for family in each.describe()]
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}


def labels() -> dict[str, set[str]]:
    """Return the labels of each of these."""
    return dict(zip(types(), (set(_labels_of(each)) for each in _OURS), strict=True))


def _labels_of(metric: Counter | Gauge | Histogram | Reading) -> tuple[str, ...]:
    return metric.label_names if isinstance(metric, Reading) else tuple(metric._labelnames)  # noqa: SLF001  # no other way
