"""What the core does about nodes: what operators want of them, and what they say on their streams."""

from __future__ import annotations

from typing import Final

from controller.core.commands import (
    AddNode,
    Cordon,
    ForgetNode,
    MarketReported,
    NodeBeat,
    NodeJoined,
    NodeStreamEnded,
    ReplicasReported,
    StartDrain,
    Uncordon,
)
from controller.core.model import Node
from controller.core.nodes import life
from controller.core.records import Table
from controller.core.timers import DrainDeadline
from controller.core.turn import Part

NODES: Final = Part(
    "nodes",
    tables=(
        Table(
            Node,
            "node",
            "name",
            things=lambda state: state.nodes.values(),
            put=lambda state, node: state.nodes.update({node.name: node}),
        ),
    ),
    commands={
        AddNode: life.add,
        Cordon: life.cordon,
        Uncordon: life.uncordon,
        StartDrain: life.start_drain,
        ForgetNode: life.forget,
        NodeJoined: life.joined,
        NodeBeat: life.beat,
        NodeStreamEnded: life.stream_ended,
        ReplicasReported: life.replicas_reported,
        MarketReported: life.market_reported,
    },
    timers={DrainDeadline: life.drain_deadline},
)
