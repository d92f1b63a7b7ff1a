"""Procrastinate's side: its app, as its documentation says to write one, and a client that takes orders on stdin.

Workers: `python -m procrastinate --app=app_procrastinate.app worker`. Client: `python app_procrastinate.py`.
"""

import asyncio
import json
import os
import sys
import time

import procrastinate  # type: ignore[import-not-found]

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_URL"], min_size=1, max_size=4)
)


def note(record: str, line: dict[str, object]) -> None:
    descriptor = os.open(record, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


@app.task(name="work")  # type: ignore[untyped-decorator]
async def work(record: str, seconds: float, key: str) -> None:
    note(record, {"event": "began", "note": key, "at": time.time()})
    await asyncio.sleep(seconds)
    note(record, {"event": "ended", "note": key, "at": time.time()})


@app.task(name="noop")  # type: ignore[untyped-decorator]
async def noop() -> None:
    """Nothing."""


@app.periodic(cron="* * * * *")  # type: ignore[untyped-decorator]
@app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs", pass_context=True)  # type: ignore[untyped-decorator]
async def retry_stalled_jobs(context: object, timestamp: int) -> None:
    """As its manual shows, but each minute instead of every ten."""
    for job in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(job)


async def obey(order: dict[str, object]) -> dict[str, object]:
    if order["op"] == "prepare":
        await app.schema_manager.apply_schema_async()
        return {}
    if order["op"] == "work":
        job = await work.defer_async(record=order["record"], seconds=order["seconds"], key=order["key"])
        return {"id": job}
    if order["op"] == "noop":
        await noop.batch_defer_async(*({} for _ in range(int(str(order["count"])))))
        return {}
    rows = await app.connector.execute_query_all_async(
        "SELECT count(*) AS n FROM procrastinate_jobs WHERE task_name = 'noop' AND status = 'succeeded'"
    )
    return {"done": rows[0]["n"]}


async def main() -> None:
    async with app.open_async():
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
