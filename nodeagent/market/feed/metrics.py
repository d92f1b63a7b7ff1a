"""The feed's Prometheus metrics, read from its status at each scrape. Loopback only; no labels but product and
table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nodeagent.market.feed.status import FeedStatus

_GAUGES = {
    "connected": ("is_connected", "Whether a connection to the venue is open"),
    "rows_queued": ("rows_queued", "Rows waiting for QuestDB"),
    "missing_trades": ("missing_trades", "Trades known to be missing now"),
    "lag_seconds": ("lag_ms", "Mean age of live events at receipt"),
    "clock_skew_seconds": ("skew_ms", "Estimate of the venue's clock minus ours"),
    "behind_seconds": ("behind_s", "How far rows are behind the capture"),
}
_COUNTERS = {
    "frames": ("frames", "Frames received"),
    "connects": ("connects", "Connections opened"),
    "gaps": ("gaps", "Holes found"),
    "gaps_repaired": ("repaired", "Holes closed"),
    "rejects": ("rejected", "Values refused"),
    "rows_dropped": ("rows_dropped", "Rows left out for want of room"),
    "rows_refused": ("rows_refused", "Rows that QuestDB refused"),
    "capture_bytes": ("capture_bytes", "Bytes written to the capture"),
    "rest_requests": ("rest_requests", "Questions asked over REST"),
    "rest_failures": ("rest_failures", "Questions that failed"),
}


class FeedCollector(Collector):
    """Metrics of one feed."""

    def __init__(self, status: Callable[[], FeedStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Everything, from one status."""
        status = self._status()
        source = [status.source]
        for name, (key, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"agentfarm_feed_{name}", text, labels=["source"])
            value = float(getattr(status, key))
            gauge.add_metric(source, value / 1000 if key.endswith("_ms") else value)
            yield gauge
        for name, (key, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"agentfarm_feed_{name}", text, labels=["source"])
            counter.add_metric(source, float(getattr(status, key)))
            yield counter
        rows = CounterMetricFamily("agentfarm_feed_rows", "Rows stored in QuestDB", labels=["source", "table"])
        for table, count in status.rows_by_table.items():
            rows.add_metric([status.source, table], float(count))
        yield rows
        trades = CounterMetricFamily("agentfarm_feed_trades", "Trades received", labels=["source", "product"])
        synced = GaugeMetricFamily(
            "agentfarm_feed_book_synced", "Whether the book can be trusted", labels=["source", "product"]
        )
        for product, facts in status.products.items():
            trades.add_metric([status.source, product], float(facts.trades))
            synced.add_metric([status.source, product], float(facts.is_synced))
        yield trades
        yield synced


def serve_metrics(status: Callable[[], FeedStatus], port: int) -> int:
    """Serve on loopback; the port chosen."""
    registry = CollectorRegistry()
    registry.register(FeedCollector(status))
    server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    return int(server.server_port)
