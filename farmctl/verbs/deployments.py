"""`farmctl deploy`, `plan`, `scale`, `rollback`, `remove`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agentfarm.errors import CannotPlace
from farmctl import completion
from farmctl.api.session import Session
from farmctl.display.rollouts import watch_rollouts
from farmctl.exit_codes import Exit
from farmctl.verb import duration, verb

if TYPE_CHECKING:
    from agentfarm.agents.bundle import Bundle
    from agentfarm.agents.sources import AgentSource

UPLOAD_CHUNK: Final = 64 * 1024
STEPS_SHOWN: Final = 20
ROLLOUT_TIMEOUT: Final = "10m"

Name = Annotated[str, typer.Argument(help="The agent, or a unique prefix.", autocompletion=completion.agents)]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files or folders that hold agents.")]
Wait = Annotated[bool, typer.Option("--wait/--detach", help="Watch the rollout to its end.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to watch.")]
Generation = Annotated[
    int | None, typer.Option("--if-generation", help="Refuse if somebody changed it since; see farmctl status --json.")
]
Replicas = Annotated[int | None, typer.Option("--replicas", min=0, help="Default: as it is, else as the spec says.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Also when not every replica finds a node now.")]


@dataclass(frozen=True)
class Packed:
    """An agent on its way to the farm."""

    source: AgentSource
    bundle: Bundle

    def body(self, replicas: int | None, generation: int | None) -> dict[str, Any]:
        """The request to deploy it."""
        spec = json.loads(self.source.spec.canonical_json())
        return {"spec": spec, "digest": self.bundle.digest, "replicas": replicas, "if_generation": generation}


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    verb(app, "deploy", "farmctl deploy examples/market_brief", is_long=True)(deploy)
    verb(app, "plan", "farmctl plan examples/market_brief")(plan)
    verb(app, "scale", "farmctl scale market-brief 4", is_long=True)(scale)
    verb(app, "rollback", "farmctl rollback market-brief --to 2", is_long=True)(rollback)
    verb(app, "remove", "farmctl remove market-brief", is_long=True)(remove)


def deploy(
    session: Session,
    paths: Paths,
    replicas: Replicas = None,
    wait: Wait = True,
    timeout: Timeout = ROLLOUT_TIMEOUT,
    if_generation: Generation = None,
    anyway: Anyway = False,
) -> Exit:
    """Deploy agents: show the plan, upload, roll out, and watch it.

    A version that cannot run is taken back: its traceback is shown, and what ran before was never touched.
    """
    agents = pack_agents(paths)
    plans = [session.farm.post("/v1/deployments", a.body(replicas, if_generation), {"plan": "1"}) for a in agents]
    for made in plans:
        _say_plan(session, made)
    _refuse_unplaced(plans, anyway=anyway)
    answers = []
    for agent in agents:
        _upload(session, agent)
        answer = session.farm.post("/v1/deployments", agent.body(replicas, if_generation))
        session.out.event("deployed", agent=answer["name"], version=answer["version"])
        answers.append(answer)
    versions = [(answer["name"], answer["version"]) for answer in answers]
    code = watch_rollouts(session, versions, _within_s(timeout)) if wait else Exit.DONE
    session.out.result({"deployments": answers, "exit": int(code)}, lambda: _say_deployed(session, answers, code))
    return code


def plan(session: Session, paths: Paths, replicas: Replicas = None) -> Exit:
    """Show what `deploy` would change, and change nothing. Exit 2 if not every replica finds a node."""
    made = [session.farm.post("/v1/deployments", a.body(replicas, None), {"plan": "1"}) for a in pack_agents(paths)]
    if session.out.is_json:
        session.out.result({"plans": made})
    for item in made:
        _say_plan(session, item)
    return Exit.CANNOT_PLACE if any(item["refused"] for item in made) else Exit.DONE


def scale(
    session: Session,
    name: Name,
    replicas: Annotated[int, typer.Argument(min=0, help="How many there should be.")],
    wait: Wait = True,
    timeout: Timeout = ROLLOUT_TIMEOUT,
    if_generation: Generation = None,
    anyway: Anyway = False,
) -> Exit:
    """Change how many replicas an agent has, and watch until they run."""
    body = {"replicas": replicas, "if_generation": if_generation}
    made = session.farm.post(f"/v1/deployments/{name}/scale", body, {"plan": "1"})
    _say_plan(session, made)
    _refuse_unplaced([made], anyway=anyway)
    answer = session.farm.post(f"/v1/deployments/{name}/scale", body)
    code = _watch_count(session, answer["name"], replicas, _within_s(timeout)) if wait else Exit.DONE
    done = f"{answer['name']} has {replicas} replicas." if code is Exit.DONE and wait else f"{answer['name']}: scaling."
    session.out.result(answer, lambda: session.out.say(done))
    return code


def rollback(
    session: Session,
    name: Name,
    to: Annotated[int | None, typer.Option("--to", min=1, help="Default: the newest earlier one that ran.")] = None,
    wait: Wait = True,
    timeout: Timeout = ROLLOUT_TIMEOUT,
    if_generation: Generation = None,
) -> Exit:
    """Roll an earlier version out again."""
    answer = session.farm.post(f"/v1/deployments/{name}/rollback", {"to_version": to, "if_generation": if_generation})
    versions = [(answer["name"], answer["version"])]
    code = watch_rollouts(session, versions, _within_s(timeout)) if wait else Exit.DONE
    session.out.result(answer, lambda: _say_deployed(session, [answer], code))
    return code


def remove(session: Session, name: Name, wait: Wait = True, timeout: Timeout = ROLLOUT_TIMEOUT) -> Exit:
    """Take an agent away: what waits is cancelled, what runs may finish. Needs its whole name."""
    session.farm.delete(f"/v1/deployments/{name}")
    session.again = "farmctl status"
    code = _watch_gone(session, name, _within_s(timeout)) if wait else Exit.DONE
    words = f"{name} is gone." if code is Exit.DONE and wait else f"{name} is being removed."
    session.out.result({"name": name, "is_gone": wait and code is Exit.DONE}, lambda: session.out.say(words))
    return code


def pack_agents(paths: list[Path]) -> list[Packed]:
    """Every agent under the paths, archived. Raises InvalidRequest that says what is wrong with which file."""
    from agentfarm.agents.bundle import pack  # noqa: PLC0415 - pydantic and YAML, which other verbs need not wait for
    from agentfarm.agents.sources import find_agents  # noqa: PLC0415 - as above

    return [Packed(source, pack(source)) for path in paths for source in find_agents(path)]


def _within_s(timeout: str | None) -> float:
    """How long a rollout is watched; the default also for 0."""
    seconds = duration(timeout) or duration(ROLLOUT_TIMEOUT)
    assert seconds is not None
    return seconds


def _upload(session: Session, agent: Packed) -> None:
    """Send the bundle unless the farm has it."""
    path = f"/v1/bundles/{agent.bundle.digest}"
    if session.farm.has(path):
        return
    data = agent.bundle.data
    session.farm.put(path, _chunks(session, agent.source.name, data), len(data))
    session.out.event("uploaded", f"{agent.source.name}: uploaded {len(agent.bundle.files)} files, {_size(len(data))}",
                      agent=agent.source.name, bytes=len(data))  # fmt: skip


def _chunks(session: Session, name: str, data: bytes) -> Iterator[bytes]:
    tenths = 0
    for start in range(0, len(data), UPLOAD_CHUNK):
        yield data[start : start + UPLOAD_CHUNK]
        part = start * 10 // max(len(data), 1)
        if part > tenths and len(data) > 4 * 2**20:
            tenths = part
            session.out.event("uploading", f"{name}: {part * 10} % of {_size(len(data))}", agent=name, bytes=start)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.0f} KiB"


def _refuse_unplaced(plans: list[Mapping[str, Any]], *, anyway: bool) -> None:
    short = [made for made in plans if made["refused"]]
    if short and not anyway:
        names = ", ".join(f"{len(made['refused'])} of {made['agent']}" for made in short)
        raise CannotPlace(
            f"No node can take {names}; nothing was changed.",
            remedy="Make room, ask for fewer replicas, or let them wait with --anyway.",
        )


def _say_plan(session: Session, made: Mapping[str, Any]) -> None:
    session.out.event("plan", agent=made["agent"], plan=made)
    if not session.out.is_for_people:
        return
    from farmctl.display.tables import reasons_table, table  # noqa: PLC0415 - rich, for people only

    out, name = session.out, made["agent"]
    after = made.get("version_after")
    before = made.get("version_before")
    version = f"version {after}" if before in (None, after) else f"version {before} → {after}"
    head = f"{name}: {version}, " if after is not None else f"{name}: "
    if not made["is_changed"]:
        out.say(f"{head}{made['after']} replicas: nothing changes", "bold")
        return
    out.say(f"{head}{made['before']} → {made['after']} replicas", "bold")
    if made.get("code_changed") and before is not None:
        out.say("  the code changes")
    for change in made.get("spec_changes") or ():
        out.say(f"  {change['key']}: {json.dumps(change['before'])} → {json.dumps(change['after'])}")
    rows = [(f"{name}/{seat['seat']}", "start", seat["node"]) for seat in made["placed"]]
    rows += [(f"{name}/{seat}", "replace", None) for seat in made["replaced"]]
    rows += [(f"{name}/{seat}", "stop", None) for seat in made["removed"]]
    rows += [(f"{name}/{seat}", "cannot be placed", None) for seat in made["refused"]]
    if rows:
        out.say(table(["replica", "step", "node"], rows[:STEPS_SHOWN]))
    if len(rows) > STEPS_SHOWN:
        out.say(f"… and {len(rows) - STEPS_SHOWN:,} more: {len(made['placed']):,} start, {len(made['replaced']):,} are "
                f"replaced, {len(made['removed']):,} stop, {len(made['refused']):,} cannot be placed")  # fmt: skip
    if made["refused"]:
        out.say(reasons_table(made["nodes"], "why"))


def _say_deployed(session: Session, answers: list[Mapping[str, Any]], code: Exit) -> None:
    if code is Exit.DONE:
        for answer in answers:
            words = "is deployed" if answer["is_changed"] else "was so already"
            session.out.say(f"{answer['name']} version {answer['version']} {words}.")


def _watch_count(session: Session, name: str, count: int, timeout_s: float) -> Exit:
    """Until that many run and no more; a seat without a node at the end is exit 2."""
    session.again = "farmctl status"
    until, shown = session.mono() + timeout_s, ""
    while True:
        view = session.farm.get(f"/v1/deployments/{name}")
        running, here = view["replicas_running"], len(view["replicas"])
        words = f"{name}: {running} of {count} running" + (f", {here - count} stopping" if here > count else "")
        if words != shown:
            shown = words
            session.out.event("scale.progress", words, agent=name, running=running, wanted=count)
        if running == count == here or view["replicas_wanted"] != count:
            return Exit.DONE if view["replicas_wanted"] == count else Exit.ERROR
        if session.mono() >= until:
            is_pending = any(replica["state"] == "pending" for replica in view["replicas"])
            session.out.event("scale.late", f"{name}: time is over. Why: farmctl explain {name}", agent=name)
            return Exit.CANNOT_PLACE if is_pending else Exit.ERROR
        session.sleep(0.25)


def _watch_gone(session: Session, name: str, timeout_s: float) -> Exit:
    until, shown = session.mono() + timeout_s, -1
    while session.mono() < until:
        views = session.farm.get("/v1/deployments")["deployments"]
        view = next((item for item in views if item["name"] == name), None)
        if view is None:
            return Exit.DONE
        if view["leased"] != shown:
            shown = view["leased"]
            session.out.event("remove.progress", f"{name}: {shown} running tasks may finish", agent=name, running=shown)
        session.sleep(0.25)
    return Exit.ERROR
