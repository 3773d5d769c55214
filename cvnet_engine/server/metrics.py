"""Prometheus metrics. Pairs per second are the rate of `cvnet_pairs`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    def __init__(self, queue: Callable[[], int], images: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cvnet_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.stages = Histogram(
            "cvnet_stage_seconds", "Work for one request, by stage.", ("stage",), buckets=BUCKETS_S, registry=registry
        )
        self.pairs = Counter("cvnet_pairs", "Pairs scored.", registry=registry)
        self.errors = Counter("cvnet_errors", "Problems, by kind.", ("kind",), registry=registry)
        Gauge("cvnet_queue", "Requests that the engines are at work on.", registry=registry).set_function(queue)
        Gauge("cvnet_gallery_images", "Images in the gallery.", registry=registry).set_function(images)

    def text(self) -> bytes:
        return generate_latest(self._registry)
