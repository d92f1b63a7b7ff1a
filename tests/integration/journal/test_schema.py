"""The migrations make the tables that schema.py says, and the database knows the same words as the core."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from agentfarm.errors import Conflict, Unavailable
from controller.core.lives import FINAL_TASK_STATES, NodeState, Outcome, ReplicaState
from controller.journal import schema
from controller.journal.migrations.migrate import migrate, newest_revision

PARTITIONS = re.compile(r"task_finished_(default|\d{8})$")


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def test_migrations_make_the_tables_of_the_schema(database_url: str) -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg2://" + database_url.split("://", 1)[1])

    def is_ours(_: object, name: str | None, kind: str, __: bool, ___: object) -> bool:
        return not (kind == "table" and PARTITIONS.match(name or ""))

    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, schema.metadata)
    engine.dispose()
    assert differences == []


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("node_state", set(NodeState)),
        ("replica_state", set(ReplicaState)),
        ("task_finished_state", set(FINAL_TASK_STATES)),
        ("attempt_outcome", set(Outcome)),
        ("event_severity", set(schema.SEVERITIES)),
    ],
)
def test_database_knows_the_words_of_the_core(database_url: str, constraint: str, words: set[str]) -> None:
    found = query(database_url, f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{constraint}'")
    assert {word for row in found for word in re.findall(r"'(\w+)'::text", str(row[0]))} == {str(w) for w in words}


def test_revisions_say_when_they_are_safe() -> None:
    files = sorted((Path(schema.__file__).parent / "migrations" / "versions").glob("*.py"))
    assert files
    for file in files:
        assert re.fullmatch(r"\d{4}_(pre|post)_[a-z_]+", file.stem), file
        assert f'revision = "{file.stem}"' in file.read_text()


def test_migrating_twice_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url)
    migrate(empty_database_url)
    assert query(empty_database_url, "SELECT version_num FROM alembic_version") == [(newest_revision(),)]
    assert query(empty_database_url, "SELECT epoch FROM leader") == [(0,)]


def test_start_on_the_newest_schema_does_without_alembic(database_url: str) -> None:
    code = (
        "import sys; import controller.service; from controller.journal.migrations.migrate import migrate;"
        " migrate(sys.argv[1]);"
        " print([name for name in sys.modules if name.partition('.')[0] in ('alembic', 'mako', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", code, database_url], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_controllers_that_start_together_migrate_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate, empty_database_url) for _ in range(4)]:
            done.result(timeout=60)
    assert query(empty_database_url, "SELECT count(*) FROM leader") == [(1,)]


def test_database_of_a_later_release_is_refused(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '9999_pre_future'")
        connection.commit()
    with pytest.raises(Conflict, match="another release"):
        migrate(database_url)


def test_migrating_without_a_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        migrate(f"postgresql://agentfarm@/agentfarm?host={tmp_path}")
