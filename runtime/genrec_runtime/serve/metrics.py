"""What ``/metrics`` tells Prometheus, in a registry of its own."""

from __future__ import annotations

import collections
import datetime
import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from genrec_runtime.recommender import Recommender
from genrec_runtime.serve.batcher import Batch
from genrec_runtime.serve.queries import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
WAITS = (0.0002, 0.0005, *SECONDS)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LENGTHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Everything that is counted. Times are seconds, sizes are rows."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "genrec_requests",
            "Requests by what was asked and the HTTP status.",
            ["endpoint", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "genrec_request_seconds", "From the request's headers to the end of its answer.", ["endpoint"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "genrec_refused_requests", "Requests that were not answered, by the code of the error.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.queue = Gauge("genrec_queue_rows", "Rows that wait in the queue.", registry=registry)
        self.max_queue = Gauge("genrec_max_queue_rows", "Rows that may wait in the queue.", registry=registry)
        self.connections = Gauge("genrec_connections", "Connections that are open.", registry=registry)
        self.max_connections = Gauge(
            "genrec_max_connections", "Connections that may ask for anything.", registry=registry
        )
        self.batch_rows = Histogram("genrec_batch_rows", "Rows of a batch.", buckets=ROWS, registry=registry)
        self.batch_wait = Histogram(
            "genrec_batch_wait_seconds",
            "How long the oldest request of a batch waited.",
            buckets=WAITS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "genrec_batch_seconds", "How long a batch took to answer.", buckets=WAITS, registry=registry
        )
        self.rows = Counter("genrec_rows", "Rows answered, by how.", ["status"], registry=registry)
        self.given = Counter("genrec_history_items", "Ids of histories.", registry=registry)
        self.unknown = Counter("genrec_unknown_items", "Those of them that the bundle lacks.", registry=registry)
        self.lengths = Lengths(registry)
        self.distinct = Gauge(
            "genrec_distinct_items", "Different items that the present bundle has recommended.", registry=registry
        )
        self.catalogue = Gauge("genrec_catalogue_items", "Items of the present bundle.", registry=registry)
        self.ready = Gauge("genrec_ready", "1 while the service is ready, 0 while it is not.", registry=registry)
        self.info = Gauge(
            "genrec_bundle_info", "1, of the present bundle.", ["model", "version", "digest", "providers"],
            registry=registry,
        )  # fmt: skip
        self.created = Gauge(
            "genrec_bundle_created_timestamp_seconds", "When the present bundle was exported; its age is time() less this.",
            registry=registry,
        )  # fmt: skip
        self.loaded = Gauge(
            "genrec_bundle_loaded_timestamp_seconds", "When the present bundle began to serve.", registry=registry
        )
        self.reloads = Counter(
            "genrec_reloads", "Other bundles that were found: swapped in, or refused.", ["result"], registry=registry
        )
        self.reload_refused = Gauge(
            "genrec_reload_refused", "1 while the path leads to a bundle that was refused.", registry=registry
        )
        self.availability = Counter(
            "genrec_availability_reloads", "Readings of a changed availability file.", ["result"], registry=registry
        )
        self.availability_refused = Gauge(
            "genrec_availability_refused", "1 while the availability file is one that was refused.", registry=registry
        )
        self.available = Gauge("genrec_available_items", "Items that may be recommended.", registry=registry)
        for counter in (self.reloads, self.availability):
            for result in ("swapped", "refused"):
                counter.labels(result)
        for status in ("model", "cold_start", "all_unknown"):
            self.rows.labels(status)
        ProcessCollector(registry=registry)
        self._version = ""
        self._served = np.zeros(1, np.bool_)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        self.distinct.set(int(np.count_nonzero(self._served)))
        return generate_latest(self.registry)

    def on_bundle(self, recommender: Recommender) -> None:
        """Another bundle serves."""
        manifest = recommender.manifest
        self.info.clear()
        providers = ",".join(recommender.device_report.providers)
        self.info.labels(str(manifest.model.get("name", "")), manifest.version, recommender.digest, providers).set(1)
        self.created.set(_instant(manifest.created))
        self.loaded.set_to_current_time()
        self.catalogue.set(recommender.semantics.num_items)
        self._version, self._served = manifest.version, np.zeros(recommender.semantics.num_items + 1, np.bool_)

    def on_batch(self, batch: Batch) -> None:
        """A batch was answered."""
        self.batch_rows.observe(batch.rows)
        self.batch_wait.observe(batch.waited)
        self.batch_seconds.observe(batch.seconds)

    def on_answers(self, recommender: Recommender, answers: list[Answer]) -> None:
        """Some queries were answered by a bundle."""
        served = self._served
        rows = [items for answer in answers for items in answer.items]
        for status, count in collections.Counter(status for answer in answers for status in answer.status).items():
            self.rows.labels(status).inc(count)
        self.lengths.add(collections.Counter(map(len, rows)))
        self.given.inc(sum(answer.given for answer in answers))
        self.unknown.inc(sum(sum(answer.unknown) for answer in answers))
        if recommender.manifest.version == self._version:
            served[recommender.catalogue.items.index(list(itertools.chain.from_iterable(rows)))] = True


class Lengths(Collector):
    """How many items rows had: a histogram that takes many rows at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock, self._counts, self._sum = threading.Lock(), [0] * (len(LENGTHS) + 1), 0
        registry.register(self)

    def add(self, lengths: collections.Counter[int]) -> None:
        """Counts rows, by their lengths."""
        with self._lock:
            for length, rows in lengths.items():
                self._counts[bisect_left(LENGTHS, length)] += rows
                self._sum += length * rows

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        with self._lock:
            totals, total = list(itertools.accumulate(self._counts)), self._sum
        buckets = [(str(float(bound)), float(count)) for bound, count in zip(LENGTHS, totals, strict=False)]
        buckets.append(("+Inf", float(totals[-1])))
        yield HistogramMetricFamily(
            "genrec_result_items", "Items of an answered row.", buckets=buckets, sum_value=float(total)
        )


def _instant(created: str) -> float:
    """Seconds since 1970 of a manifest's date; 0 where it has none."""
    try:
        return datetime.datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
