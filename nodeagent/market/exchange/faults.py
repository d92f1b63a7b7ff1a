"""What can go wrong between the venue and a client, chosen by a seed or asked for by a test. Pure: frames in, frames
out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentfarm.errors import InvalidRequest


class FaultKind(StrEnum):
    """Names as in `--faults`."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    """The frame comes after the next one."""
    CORRUPT = "corrupt"
    """One character becomes one that no number and no keyword has."""
    TRUNCATE = "truncate"
    STALL = "stall"
    """The session stays open and sends nothing for `seconds`; its frames come later."""
    CLOSE = "close"
    """The connection is cut before the frame."""
    CLOSE_IN_SNAPSHOT = "close_in_snapshot"
    """The connection is cut in the middle of a snapshot frame, or of a snapshot's answer over REST."""
    SLOW_CONSUMER = "slow_consumer"
    """The venue finds the client too slow and closes with ErrSlowConsume."""
    SHUTDOWN = "shutdown"
    """The server that serves the connection shuts down, with a word where the venue has one, and closes."""
    TOO_MANY_REQUESTS = "429"
    """A REST request or a connection is refused; where the venue names a time, for `seconds`."""
    CLOCK_STEP = "clock_step"
    """The venue's clock jumps by `seconds`."""


FRAME_FAULTS: Final = (
    FaultKind.DROP,
    FaultKind.DUPLICATE,
    FaultKind.REORDER,
    FaultKind.CORRUPT,
    FaultKind.TRUNCATE,
    FaultKind.STALL,
    FaultKind.CLOSE,
    FaultKind.CLOSE_IN_SNAPSHOT,
    FaultKind.SLOW_CONSUMER,
    FaultKind.SHUTDOWN,
)


@dataclass(slots=True)
class Fault:
    """Happens to the next `count` things it fits, or to a share `rate` of them without end."""

    kind: FaultKind
    count: int = 0
    rate: float = 0.0
    seconds: float = 3.0
    channel: str = ""
    """Only frames of this channel, by the name in the frame (`market_trades`, `match`, `l2_data` …)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A message for one session, as faults and books of record see it."""

    text: str
    channel: str
    product: str = ""
    is_snapshot: bool = False
    is_control: bool = False
    """An acknowledgement or an error. Never faulted by rate: the venue's losses are of data."""
    first_trade_id: int = 0
    """The lowest trade id inside; 0 without trades."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do for one frame: texts to send, in order, and what else befalls the session."""

    texts: list[str]
    befallen: FaultKind | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class FaultPlan:
    """Faults in force. `happened` counts them, so that a test can compare with what was noticed."""

    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    happened: Counter[FaultKind] = field(default_factory=Counter)
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"faults/{self.seed}")  # noqa: S311 - chosen by seed, that is the point

    def draw(self, kinds: Iterable[FaultKind], frame: Frame | None = None) -> Fault | None:
        """The fault, if any, that happens now among `kinds`; counted."""
        chosen = tuple(kinds)
        for fault in self.faults:
            if fault.kind not in chosen or (frame and not _fits(fault, frame)):
                continue
            is_asked = fault.count > 0
            is_drawn = fault.rate > 0 and not (frame and frame.is_control) and self._chance.random() < fault.rate
            if is_asked or is_drawn:
                fault.count -= is_asked
                self.happened[fault.kind] += 1
                return fault
        return None

    def judge(self, frame: Frame, held: list[str]) -> Verdict:
        """Decide one frame. `held` keeps a reordered frame of this session until the next one has gone."""
        fault = self.draw(FRAME_FAULTS, frame)
        late, held[:] = list(held), []
        if fault is None:
            return Verdict([frame.text, *late])
        match fault.kind:
            case FaultKind.DROP:
                return Verdict(late)
            case FaultKind.DUPLICATE:
                return Verdict([frame.text, frame.text, *late])
            case FaultKind.REORDER:
                held.append(frame.text)
                return Verdict(late)
            case FaultKind.CORRUPT:
                place = self._chance.randrange(len(frame.text))
                return Verdict([f"{frame.text[:place]}#{frame.text[place + 1 :]}", *late])
            case FaultKind.TRUNCATE:
                return Verdict([frame.text[: self._chance.randrange(len(frame.text))], *late])
            case _:
                return Verdict([frame.text, *late], fault.kind, fault.seconds)


def _fits(fault: Fault, frame: Frame) -> bool:
    if fault.kind is FaultKind.CLOSE_IN_SNAPSHOT and not frame.is_snapshot:
        return False
    return not fault.channel or fault.channel == frame.channel


def parse_faults(spec: str) -> list[Fault]:
    """Read `drop=0.01,stall=0.001:5,close=2x` (share; share with seconds; a number of times).

    Raises InvalidRequest, naming the part and the known kinds.
    """
    faults = []
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        name, _, amount = part.partition("=")
        amount, _, seconds = amount.partition(":")
        try:
            fault = Fault(FaultKind(name), seconds=float(seconds or 3.0))
            if amount.endswith("x"):
                fault.count = int(amount[:-1])
            else:
                fault.rate = float(amount)
        except ValueError as error:
            names = ", ".join(FaultKind)
            raise InvalidRequest(
                f"{part!r} is not a fault: {error}.",
                remedy=f"Write kind=share[:seconds] or kind=NUMBERx; kinds: {names}.",
            ) from error
        faults.append(fault)
    return faults
