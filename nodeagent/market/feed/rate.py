"""How fast, and how late, over the last second."""

from __future__ import annotations

import time

from nodeagent.market.model.times import MS_NS
from nodeagent.market.pipeline.pipeline import Pipeline


class Rate:
    """Frames a second, and the mean lag, over the last second."""

    def __init__(self) -> None:
        self.per_s = 0.0
        self.lag_ms = 0.0
        self._frames = 0
        self._at_s = time.monotonic()
        self._lag = (0, 0)

    def tick(self, frames: int, pipeline: Pipeline) -> None:
        """A second has passed."""
        now_s = time.monotonic()
        self.per_s = (frames - self._frames) / max(0.001, now_s - self._at_s)
        self._frames, self._at_s = frames, now_s
        counts = [product.all_counts() for product in pipeline.state.products.values()]
        total = (sum(count.lag_sum_ns for count in counts), sum(count.lag_count for count in counts))
        if total[1] > self._lag[1]:
            self.lag_ms = (total[0] - self._lag[0]) / (total[1] - self._lag[1]) / MS_NS
        self._lag = total
