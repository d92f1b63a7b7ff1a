"""Celery's side: its app with the settings its manual gives for work that must not be lost, and a client on stdin.

Workers: `python -m celery --app=app_celery worker`. Client: `python app_celery.py`.
"""

import json
import os
import sys
import time

from celery import Celery  # type: ignore[import-not-found]

app = Celery("app_celery", broker=os.environ["PEER_URL"] + "/0", backend=os.environ["PEER_URL"] + "/1")
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)


def note(record: str, line: dict[str, object]) -> None:
    descriptor = os.open(record, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


@app.task(name="work", ignore_result=True)  # type: ignore[untyped-decorator]
def work(record: str, seconds: float, key: str) -> None:
    note(record, {"event": "began", "note": key, "at": time.time()})
    time.sleep(seconds)
    note(record, {"event": "ended", "note": key, "at": time.time()})


@app.task(name="noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    """Nothing; its result is stored."""


def obey(order: dict[str, object]) -> dict[str, object]:
    if order["op"] == "work":
        work.apply_async((order["record"], order["seconds"], order["key"]), task_id=str(order["key"]))
    elif order["op"] == "noop":
        for _ in range(int(str(order["count"]))):
            noop.delay()
    elif order["op"] == "done":
        return {"done": app.backend.client.dbsize()}
    return {}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
