"""What the core does about tasks."""

from __future__ import annotations

from typing import Final

from controller.core.commands import (
    AttemptsEnded,
    AttemptsStarted,
    CancelTask,
    FactSetAside,
    StoreCheckpoint,
    SubmitTasks,
)
from controller.core.tasks import life
from controller.core.timers import QueueTimedOut, RetryDue
from controller.core.turn import Part

TASKS: Final = Part(
    "tasks",
    commands={
        SubmitTasks: life.submit,
        CancelTask: life.cancel,
        StoreCheckpoint: life.store_checkpoint,
        AttemptsStarted: life.attempts_started,
        AttemptsEnded: life.attempts_ended,
        FactSetAside: life.fact_set_aside,
    },
    timers={RetryDue: life.retry_due, QueueTimedOut: life.queue_timed_out},
)
