"""What operators want to run: deploy, scale, roll back, remove."""

from __future__ import annotations

from agentfarm.errors import Conflict, FarmError, InvalidRequest, NotFound
from agentfarm.limits import REPLICAS_MAX
from controller.core.commands import Deploy, DeployAnswer, Remove, Rollback, Scale
from controller.core.lives import TaskState
from controller.core.model import Deployment, DeploymentName, Rollout, Version
from controller.core.timers import RolloutDeadline
from controller.core.turn import Turn


def deploy(turn: Turn, command: Deploy) -> DeployAnswer | FarmError:
    """Make a deployment, or give it a new version; the same digest and spec again change nothing but the count."""
    if command.replicas is not None and not 0 <= command.replicas <= REPLICAS_MAX:
        return _bad_count(command.replicas)
    deployment = turn.state.deployments.get(command.name)
    if deployment is not None and deployment.is_removed:
        return Conflict(f"{command.name} is being removed.", remedy="Wait until its last replica is gone, then deploy.")
    stale = _check_generation(command.name, deployment, command.if_generation)
    if stale is not None:
        return stale
    if deployment is None:
        return _create(turn, command)
    current = deployment.versions[deployment.version]
    count = deployment.replicas_wanted if command.replicas is None else command.replicas
    is_same = (current.digest, current.spec_json) == (command.digest, command.spec_json)
    if is_same and count == deployment.replicas_wanted and not deployment.is_halted:
        return DeployAnswer(deployment.version, deployment.generation, is_changed=False)
    deployment.replicas_wanted = count
    if is_same:
        _touch(turn, deployment)
        if deployment.is_halted:
            _begin_rollout(turn, deployment, deployment.version, None)
    else:
        number = max(deployment.versions) + 1
        deployment.versions[number] = _version(turn, command, number)
        _touch(turn, deployment)
        _begin_rollout(turn, deployment, number, _last_good(deployment))
    return DeployAnswer(deployment.version, deployment.generation, is_changed=True)


def _create(turn: Turn, command: Deploy) -> DeployAnswer:
    count = command.spec_replicas if command.replicas is None else command.replicas
    deployment = Deployment(command.name, count, 1, {1: _version(turn, command, 1)}, generation=0)
    turn.state.deployments[command.name] = deployment
    _touch(turn, deployment)
    _begin_rollout(turn, deployment, 1, None)
    return DeployAnswer(1, deployment.generation, is_changed=True)


def _version(turn: Turn, command: Deploy, number: int) -> Version:
    version = Version(command.name, number, command.digest, command.spec_json, command.policy, turn.now.wall)
    turn.changed(version)
    return version


def scale(turn: Turn, command: Scale) -> int | FarmError:
    """Change how many replicas are wanted."""
    if not 0 <= command.replicas <= REPLICAS_MAX:
        return _bad_count(command.replicas)
    deployment = _find(turn, command.name)
    if isinstance(deployment, FarmError):
        return deployment
    stale = _check_generation(command.name, deployment, command.if_generation)
    if stale is not None:
        return stale
    if deployment.replicas_wanted != command.replicas or deployment.is_halted:
        before, deployment.replicas_wanted = deployment.replicas_wanted, command.replicas
        _touch(turn, deployment)
        if deployment.is_halted:  # tried again, as by the same deploy: a rollout of its own, which says how it goes
            _begin_rollout(turn, deployment, deployment.version, None)
        turn.tell("deployment.scaled", f"{deployment.name}: {before} -> {command.replicas} replicas",
                  deployment=deployment.name, before=before, after=command.replicas)  # fmt: skip
    return deployment.generation


def rollback(turn: Turn, command: Rollback) -> DeployAnswer | FarmError:
    """Roll out an earlier version again."""
    deployment = _find(turn, command.name)
    if isinstance(deployment, FarmError):
        return deployment
    stale = _check_generation(command.name, deployment, command.if_generation)
    if stale is not None:
        return stale
    target = command.to_version
    if target is None:
        target = next((n for n in sorted(deployment.versions, reverse=True)
                       if n < deployment.version and deployment.versions[n].has_run), None)  # fmt: skip
        if target is None:
            return Conflict(f"{deployment.name} has no earlier version that ever ran.", remedy="Name one: --to N.",
                            versions=sorted(deployment.versions))  # fmt: skip
    if target not in deployment.versions:
        return NotFound(f"{deployment.name} has no version {target}.", versions=sorted(deployment.versions))
    if target == deployment.version:
        return DeployAnswer(target, deployment.generation, is_changed=False)
    _touch(turn, deployment)
    turn.tell("deployment.rolled_back", f"{deployment.name}: back to version {target}", deployment=deployment.name,
              severity="warning", from_version=deployment.version, to_version=target)  # fmt: skip
    _begin_rollout(turn, deployment, target, _last_good(deployment))
    return DeployAnswer(target, deployment.generation, is_changed=True)


def remove(turn: Turn, command: Remove) -> FarmError | None:
    """Take the deployment away: what waits is cancelled, what runs may finish."""
    deployment = _find(turn, command.name)
    if isinstance(deployment, FarmError):
        return deployment
    deployment.is_removed = True
    deployment.replicas_wanted = 0
    _touch(turn, deployment)
    waiting = [task for task in turn.state.tasks.values()
               if task.deployment == deployment.name and task.state is TaskState.QUEUED]  # fmt: skip
    for task in waiting:
        turn.finish(task, "cancelled", error=("Cancelled", f"{deployment.name} was removed.", ""))
    turn.tell("deployment.removed", f"{deployment.name} is being removed", deployment=deployment.name,
              cancelled=len(waiting))  # fmt: skip
    return None


def _begin_rollout(turn: Turn, deployment: Deployment, to: int, good: int | None) -> None:
    deployment.version, deployment.is_halted = to, False
    deployment.seat_failures.clear()
    deadline = turn.now.mono + deployment.versions[to].policy.healthy_deadline_s
    deployment.rollout = Rollout(good if good != to else None, to, turn.now.wall, deadline)
    turn.at(deadline, RolloutDeadline(deployment.name))
    turn.tell("deployment.rollout", f"{deployment.name}: version {to} is rolled out", deployment=deployment.name,
              from_version=deployment.rollout.from_version, to_version=to)  # fmt: skip


def _last_good(deployment: Deployment) -> int | None:
    """The version to fall back to: the present one if it ever ran, else the one it would have fallen back to."""
    if deployment.versions[deployment.version].has_run:
        return deployment.version
    return deployment.rollout.from_version if deployment.rollout is not None else None


def _touch(turn: Turn, deployment: Deployment) -> None:
    deployment.generation += 1
    turn.changed(deployment)
    turn.seats.add(deployment.name)


def _find(turn: Turn, name: DeploymentName) -> Deployment | NotFound:
    deployment = turn.state.deployments.get(name)
    if deployment is None or deployment.is_removed:
        return NotFound(f"No agent {name!r} is deployed.", known=sorted(turn.state.deployments))
    return deployment


def _check_generation(name: DeploymentName, deployment: Deployment | None, asked: int | None) -> Conflict | None:
    generation = deployment.generation if deployment is not None else 0
    if asked is None or asked == generation:
        return None
    return Conflict(f"{name} is at generation {generation}, not {asked}: somebody changed it meanwhile.",
                    remedy="Look again (farmctl status) and repeat.", generation=generation)  # fmt: skip


def _bad_count(count: int) -> InvalidRequest:
    return InvalidRequest(f"{count} replicas cannot be: it must be from 0 to {REPLICAS_MAX}.")
