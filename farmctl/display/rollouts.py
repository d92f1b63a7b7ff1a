"""Watching rollouts to their end, and saying how each went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentfarm.errors import NotFound, Unavailable
from farmctl.api.session import Session
from farmctl.exit_codes import Exit, joined

LOOK_EVERY_S: Final = 0.25
AWAY_MAX_S: Final = 120.0


@dataclass
class Watched:
    """One deployment on its way."""

    name: str
    version: int
    progress: str = ""
    view: Mapping[str, Any] = field(default_factory=dict)
    code: Exit | None = None


def watch_rollouts(session: Session, versions: Sequence[tuple[str, int]], timeout_s: float) -> Exit:
    """Follow (name, version) until each is complete or taken back. Prints what changes, and why one failed."""
    watched = [Watched(name, version) for name, version in versions]
    session.again = "farmctl status"
    until = session.mono() + timeout_s
    away_since: float | None = None
    while open_ones := [item for item in watched if item.code is None]:
        if session.mono() >= until:
            break
        try:
            for item in open_ones:
                _look(session, item)
            away_since = None
        except Unavailable as error:
            away_since = away_since or session.mono()
            if session.mono() - away_since > AWAY_MAX_S:
                raise
            session.out.event("away", f"{error.problem} Still watching.")
        if any(item.code is None for item in watched):
            session.sleep(LOOK_EVERY_S)
    for item in watched:
        if item.code is None:
            _say_late(session, item, timeout_s)
    return joined([Exit.ERROR if item.code is None else item.code for item in watched])


def _look(session: Session, item: Watched) -> None:
    try:
        view = session.farm.get(f"/v1/deployments/{item.name}")
    except NotFound:
        item.code = Exit.ERROR
        session.out.event("rollout.gone", f"{item.name} was removed meanwhile.", agent=item.name)
        return
    item.view = view
    rollout = view["rollout"]
    if rollout is None:
        item.code = Exit.DONE
        return
    if rollout["to_version"] != item.version:
        item.code = Exit.ERROR
        session.out.event("rollout.replaced", f"{item.name}: somebody rolled out version {rollout['to_version']}.",
                          agent=item.name)  # fmt: skip
        return
    state = rollout["state"]
    running = sum(r["state"] == "running" and r["version"] == item.version for r in view["replicas"])
    progress = f"{item.name}: version {item.version} {state}, {running} of {view['replicas_wanted']} running"
    if progress != item.progress:
        item.progress = progress
        session.out.event(f"rollout.{state}", progress, agent=item.name, version=item.version, running=running,
                          wanted=view["replicas_wanted"])  # fmt: skip
    if state == "complete":
        item.code = Exit.DONE
    elif state in ("reverted", "failed"):
        item.code = Exit.ERROR
        _say_failed(session, item, rollout)


def _say_failed(session: Session, item: Watched, rollout: Mapping[str, Any]) -> None:
    before = rollout["from_version"]
    outcome = f"Version {before} runs on, untouched." if before is not None else "No earlier version was there to keep."
    session.out.event("rollout.detail", agent=item.name, reason=rollout["reason"], detail=rollout["detail"])
    if session.out.is_for_people:
        session.out.errors.print(f"{item.name}: version {item.version} cannot run: {rollout['reason']}", style="red",
                                 highlight=False, markup=False)  # fmt: skip
        if rollout["detail"]:
            session.out.errors.print(rollout["detail"].rstrip(), highlight=False, markup=False, soft_wrap=True)
        session.out.errors.print(outcome, style="bold", highlight=False, markup=False)


def _say_late(session: Session, item: Watched, timeout_s: float) -> None:
    """Time is up. A seat without a node needs room on a node; anything else needs more time."""
    pending = [r for r in item.view.get("replicas") or () if r["state"] == "pending"]
    item.code = Exit.CANNOT_PLACE if pending else Exit.ERROR
    words = f"{len(pending)} replicas find no node" if pending else "not every replica runs yet"
    session.out.event(
        "rollout.late", f"{item.name}: after {timeout_s:g} s {words}. Why: farmctl explain {item.name}",
        agent=item.name, pending=len(pending),
    )  # fmt: skip
