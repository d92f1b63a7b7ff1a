"""Answers stay as they are, to the letter: a long day of one farm, against the transcript beside this file.

`python -m tests.unit.gateway.test_answers` writes the transcript again. Read its difference before you commit it.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import orjson

from agentfarm.agents.bundle import digest_of
from controller.core.lives import ProductState
from controller.gateway.farm.views import VERSION
from tests.unit.gateway.small_farm import DIGEST, TOKEN, SmallFarm, spec_json

TRANSCRIPT = Path(__file__).with_name("answers.txt")
CHANGING = (
    (r'"\d{4}-\d\d-\d\dT[\d:.]+Z"', '"TIME"'),
    (r'"(heard_s_ago|seconds_left|service_s)":[\d.e-]+', r'"\1":SECONDS'),
    (r", at work on task \d+; nothing has ended there for [\d.]+ s", ""),
    (r"\b\d+(\.\d+)? s\b", "N s"),
    (re.escape(f'"version":"{VERSION}"'), '"version":"VERSION"'),
)
"""What differs from run to run, and what stands for it."""


class Day:
    """Calls one after the other, and what came back."""

    def __init__(self, farm: SmallFarm, http: httpx.AsyncClient) -> None:
        self.farm, self.http = farm, http
        self.lines: list[str] = []

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> bytes:
        content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        answer = await self.http.request(method, path, content=content, headers=headers)
        text = answer.text
        for pattern, word in CHANGING:
            text = re.sub(pattern, word, text)
        sent = f" {content.decode()}" if content is not None else ""
        self.lines += [
            f"{method} {path}{sent}",
            f"    {answer.status_code} {answer.headers.get('location', '')}".rstrip(),
        ]
        self.lines += [f"    {line}".rstrip() for line in text.splitlines()]
        await self.farm.settle()
        return answer.content

    async def tasks(self) -> None:
        await self.call("POST", "/v1/tasks?wait=5", {"agent": "echo", "input": {"a": [1, 2.5, None]}, "priority": 1})
        await self.call("POST", "/v1/tasks?wait=5", {"agent": "fail", "labels": {"team": "x"}, "thread_id": "t"})
        key = {"Idempotency-Key": "key-1"}
        await self.call("POST", "/v1/tasks?wait=5", {"agent": "echo", "input": 1, "products": ["BTC-USD"]}, **key)
        await self.call("POST", "/v1/tasks", {"agent": "echo", "input": 1}, **key)
        await self.call("POST", "/v1/tasks", {"agent": "echo", "input": 2}, **key)
        await self.call("POST", "/v1/tasks?stream=1", {"agent": "stream", "input": 5})
        for _ in range(3):
            await self.call("POST", "/v1/tasks", {"agent": "slow", "input": "long"})
        await self.call("POST", "/v1/tasks/batch", b'{"agent":"slow","idempotency_key":"b"}\n{"agent":"no"}\nno\n{}\n')
        for path in ("", "?state=queued", "?state=running&state=succeeded&limit=2", "?agent=fa", "?agent=gone",
                     "?state=running&after=6", "/1", "/2", "/5", "/6", "/99", "/1/wait?timeout=1",
                     "/6/wait?timeout=0", "/99/wait", "/2/events", "/0"):  # fmt: skip
            await self.call("GET", f"/v1/tasks{path}")
        for number in ("1", "2", "5", "6", "7", "99", "one"):
            await self.call("GET", f"/v1/explain/task/{number}")
        for path in ("/6/cancel", "/5/cancel", "/5/cancel", "/1/cancel", "/99/cancel", "/2/retry", "/7/retry"):
            await self.call("POST", f"/v1/tasks{path}")
        await self.call("GET", "/v1/tasks/5")
        await self.call("GET", "/v1/tasks/2/wait")

    async def agents(self) -> None:
        new = digest_of(b"second")
        await self.call("HEAD", f"/v1/bundles/{new}")
        await self.call("PUT", f"/v1/bundles/{new}", b"second")
        spec = spec_json("echo", concurrency=4)
        await self.call("POST", "/v1/deployments?plan=1", {"spec": spec, "digest": new, "replicas": 3})
        await self.call("POST", "/v1/deployments?plan=1", {"spec": spec_json("brief"), "digest": new})
        await self.call("POST", "/v1/deployments", {"spec": spec, "digest": new})
        await self.call("POST", "/v1/deployments?plan=1", {"spec": spec, "digest": new})
        await self.call("POST", "/v1/deployments/echo/scale?plan=1", {"replicas": 2})
        await self.call("POST", "/v1/deployments/echo/scale?plan=1", {"replicas": 0})
        await self.call("POST", "/v1/deployments/echo/scale", {"replicas": 2})
        await self.call("POST", "/v1/deployments/fail/scale", {"replicas": 0})
        await self.call("POST", "/v1/deployments/echo/rollback")
        big = spec_json("huge", resources={"memory_mib": 100_000, "gpus": 1}, placement={"capabilities": ["questdb"]})
        await self.call("POST", "/v1/deployments", {"spec": big, "digest": DIGEST})
        self.farm.nodes["node-1"].import_error = self.farm.nodes["node-2"].import_error = "Traceback: no module"
        await self.call("POST", "/v1/deployments", {"spec": spec_json("broken"), "digest": DIGEST})
        await self.call("POST", "/v1/deployments", {"spec": spec_json("stream"), "digest": new})
        self.farm.nodes["node-1"].import_error = self.farm.nodes["node-2"].import_error = ""
        await self.call("POST", "/v1/deployments/none/scale", {"replicas": 2})
        await self.call("POST", "/v1/deployments/echo/scale", {"replcas": 2})
        await self.call("GET", "/v1/deployments")
        for name in ("echo", "stream", "huge", "broken"):
            await self.call("GET", f"/v1/deployments/{name}")
        for name in ("echo", "slow", "stream", "huge", "broken", "fail", "none"):
            await self.call("GET", f"/v1/explain/deployment/{name}")
        for name in ("1", "slow/0", "huge/0", "broken/0", "slow/7"):
            await self.call("GET", f"/v1/explain/replica/{name}")
            await self.call("GET", f"/v1/replicas/{name}")
        await self.call("GET", "/v1/replicas?agent=echo")
        await self.call("GET", "/v1/replicas/slow/0/log?tail=1")
        for agent in ("huge", "broken", "fail"):
            task = orjson.loads(await self.call("POST", "/v1/tasks", {"agent": agent}))["id"]
            await self.call("GET", f"/v1/explain/task/{task}")
        await self.call("DELETE", "/v1/deployments/brok")
        await self.call("DELETE", "/v1/deployments/broken")

    async def market(self) -> None:
        await self.call("PUT", "/v1/market/products", {"products": ["ETH-USD", "XBT/USD"]})
        await self.call("PUT", "/v1/market/products", {"products": ["SOL-USD"], "copies": 2})
        self.farm.nodes["node-2"].product_state = ProductState.DOUBTFUL
        await self.call("PUT", "/v1/market/products", {"products": ["ADA-USD"]})
        await self.call("GET", "/v1/market/products")
        for name in ("ETH-USD", "SOL-USD", "ADA-USD", "BTC-USD", "NO"):
            await self.call("GET", f"/v1/explain/product/{name}")
        await self.call("DELETE", "/v1/market/products/XBT%2FUSD")
        await self.call("POST", "/v1/market/replay", {})
        await self.call("GET", "/v1/market/gaps")

    async def nodes(self) -> None:
        await self.call("GET", "/v1/nodes")
        await self.call("POST", "/v1/nodes/node-1/cordon", {"reason": "new disk"})
        await self.call("POST", "/v1/nodes/node-1/drain?plan=1&beside=node-2")
        await self.call("POST", "/v1/nodes/node-2/drain?plan=1")
        await self.call("POST", "/v1/nodes/node-1/uncordon")
        await self.call("POST", "/v1/nodes/node-2/drain?plan=1")
        await self.call("POST", "/v1/nodes/node-2/drain", {"deadline_s": 60, "reason": "old disk"})
        await self.call("GET", "/v1/nodes/node-2")
        await self.call("GET", "/v1/nodes/node-9")
        await self.call("POST", "/v1/nodes/invite", {"name": "Node 3"})
        await self.call("DELETE", "/v1/nodes/node-1")
        await self.call("DELETE", "/v1/nodes/node")

    async def farm_itself(self) -> None:
        for path in ("/v1/status", "/v1/sd/prometheus", "/healthz", "/v1/events?limit=500", "/v1/events?agent=slow",
                     "/v1/events?after=20&limit=3", "/v1/events?task=2&node=node-1"):  # fmt: skip
            await self.call("GET", path)
        await self.call("GET", "/v1/events?limit=2", Accept="text/event-stream")
        await self.call("GET", "/v1/statu")
        self.farm.memory.is_away = True
        for path in ("/v1/tasks", "/v1/tasks/1", "/v1/explain/task/1"):
            await self.call("GET", path)


async def transcript() -> str:
    farm = SmallFarm("node-1", "node-2")
    farm.nodes["node-2"].source = "coinbase-advanced"
    await farm.start()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(farm.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://farm", headers=headers) as http:
        day = Day(farm, http)
        for part in (day.tasks, day.agents, day.market, day.nodes, day.farm_itself):
            await part()
    return "\n".join(day.lines) + "\n"


async def test_every_answer_is_as_it_was() -> None:
    now, before = (await transcript()).splitlines(), TRANSCRIPT.read_text(encoding="utf-8").splitlines()
    for place, (line, earlier) in enumerate(zip(now, before, strict=False), 1):
        assert line == earlier, f"{TRANSCRIPT.name}:{place}"
    assert len(now) == len(before)


if __name__ == "__main__":
    TRANSCRIPT.write_text(asyncio.run(transcript()), encoding="utf-8")
