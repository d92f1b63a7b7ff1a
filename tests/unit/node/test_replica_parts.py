"""Small parts of a replica: what it holds, what it works on, which threads work for which attempt."""

from __future__ import annotations

import threading
from pathlib import Path

from nodeagent.runner.protocol.frames import GIVEN_BACK, Outcome, Result, Run, read_results
from nodeagent.runner.protocol.slots import Slots, read_slots
from nodeagent.runner.protocol.unix_sockets import connect, listen
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.threads import CURRENT_TOKEN, AttemptThreads


def run(token: int) -> Run:
    return Run(token * 10, 1, token, "", b"null")


def test_an_attempt_is_held_until_its_result_is_kept() -> None:
    ledger = Ledger()
    assert ledger.take([run(1), run(2)]) == [run(1), run(2)]
    ledger.start(1)
    assert ledger.counts == (1, 1)
    packed = ledger.end(Result(10, 1, Outcome.SUCCEEDED, 5, b"1"))
    assert ledger.snapshot() == ([(2, 20, False)], [packed])
    assert ledger.take([run(1), run(2), run(3)]) == [run(3)]  # told again: it is here already, even if it has ended
    ledger.forget([1])
    assert ledger.snapshot()[1] == []


def test_what_was_not_begun_is_given_back_for_ever_and_what_was_begun_is_not() -> None:
    ledger = Ledger()
    ledger.take([run(1), run(2), run(3)])
    assert ledger.start(1)
    [packed] = ledger.give_back([1, 2, 99])
    [result] = read_results(packed)
    assert (result.token, result.task_id, result.outcome, result.error_type) == (2, 20, Outcome.INTERRUPTED, GIVEN_BACK)
    assert not ledger.start(2), "it may run elsewhere by now"
    assert ledger.end(Result(20, 2, Outcome.CANCELLED, 0)) is None, "one attempt has one result"
    assert ledger.snapshot() == ([(1, 10, True), (3, 30, False)], [packed])
    assert ledger.give_back([2]) == []
    assert ledger.take([run(2)]) == []
    assert ledger.counts == (1, 1)


def test_an_attempt_is_begun_or_given_back_never_both() -> None:
    ledger = Ledger()
    tokens = list(range(1, 2_001))
    ledger.take([run(token) for token in tokens])
    begun: list[int] = []
    beginner = threading.Thread(target=lambda: begun.extend(token for token in tokens if ledger.start(token)))
    beginner.start()
    given = [
        result.token for token in reversed(tokens) for it in ledger.give_back([token]) for result in read_results(it)
    ]
    beginner.join()
    assert sorted(begun + given) == tokens


def test_what_is_worked_on_can_be_read_after_death(tmp_path: Path) -> None:
    path = tmp_path / "running"
    slots = Slots(path, 3)
    for token in (11, 12, 13):
        slots.take(token)
    slots.release(12)
    slots.release(99)
    assert read_slots(path) == {11, 13}
    slots.take(14)
    assert read_slots(path) == {11, 13, 14}
    assert read_slots(tmp_path / "nothing") is None


def test_threads_are_counted_for_the_attempt_that_started_them() -> None:
    idle = threading.Event()
    seen: list[int] = []

    def on_idle(token: int) -> None:
        seen.append(token)
        idle.set()

    threads = AttemptThreads(2, on_idle)
    gate = threading.Event()
    mark = CURRENT_TOKEN.set(5)
    threads.submit(gate.wait)
    CURRENT_TOKEN.reset(mark)
    unrelated = threads.submit(lambda: 1)
    assert unrelated.result(5) == 1
    assert threads.is_working(5)
    gate.set()
    assert idle.wait(5)
    assert not threads.is_working(5)
    assert seen == [5]
    threads.shutdown()


def test_sockets_work_in_folders_of_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    server = listen(folder / "socket")
    client = connect(folder / "socket")
    accepted, _ = server.accept()
    client.sendall(b"hello")
    accepted.settimeout(60)
    assert accepted.recv(5) == b"hello"
    assert (folder / "socket").stat().st_mode & 0o077 == 0
    for one in (server, client, accepted):
        one.close()
