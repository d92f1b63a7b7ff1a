"""The tables of the records, in the order in which they are written: what a row points at comes before it.

A new kind of record is listed here, and both journals, the check of the schema and the law know it.
"""

from __future__ import annotations

from typing import Any, Final

from controller.core.model import Deployment, FarmState, Node, Product, Replica, Version
from controller.core.records import Table


def _put_version(state: FarmState, version: Version) -> None:
    state.deployments[version.deployment].versions[version.number] = version


TABLES: Final[tuple[Table[Any], ...]] = (
    Table(Node, "node", "name", things=lambda state: state.nodes.values(),
          put=lambda state, it: state.nodes.update({it.name: it})),
    Table(Product, "product", "name", things=lambda state: state.products.values(),
          put=lambda state, it: state.products.update({it.name: it})),
    Table(Deployment, "deployment", "name", things=lambda state: state.deployments.values(),
          put=lambda state, it: state.deployments.update({it.name: it})),
    Table(Version, "version", "deployment", "number",
          things=lambda state: [it for owner in state.deployments.values() for it in owner.versions.values()],
          put=_put_version),
    Table(Replica, "replica", "id", things=lambda state: state.replicas.values(),
          put=lambda state, it: state.replicas.update({it.id: it})),
)  # fmt: skip
TABLE_OF: Final[dict[type[Any], Table[Any]]] = {table.kind: table for table in TABLES}
