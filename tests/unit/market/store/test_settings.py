"""How the server is told to run: words, compared as words."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from agentfarm.errors import Conflict, InvalidRequest
from nodeagent.market.store.endpoint import Endpoint, Passwords
from nodeagent.market.store.health import DiskState, disk_state
from nodeagent.market.store.migrate import Migration, load_migrations, parse_migration, pending
from nodeagent.market.store.process import rotate_log
from nodeagent.market.store.runtime import Java, Runtime
from nodeagent.market.store.settings import Ports, QuestDBSettings, server_command, server_environment

SETTINGS = QuestDBSettings(Path("/data/questdb"))
GIB = 1024**3


def test_everything_listens_on_loopback_and_tells_nobody() -> None:
    words = server_environment(SETTINGS, Ports(1, 2, 3), Passwords("a", "r"))
    binds = {key: value for key, value in words.items() if "BIND_TO" in key}
    assert binds == {
        "QDB_HTTP_NET_BIND_TO": "127.0.0.1:1",
        "QDB_PG_NET_BIND_TO": "127.0.0.1:2",
        "QDB_HTTP_MIN_NET_BIND_TO": "127.0.0.1:3",
    }
    assert words["QDB_LINE_TCP_ENABLED"] == "false"
    assert words["QDB_TELEMETRY_ENABLED"] == "false"
    assert words["QDB_LINE_AUTO_CREATE_NEW_TABLES"] == "false"
    assert words["QDB_PG_READONLY_USER_ENABLED"] == "true"
    assert words["QDB_PG_READONLY_PASSWORD"] == "r"


def test_passwords_are_not_on_the_command_line() -> None:
    runtime = Runtime(Java(Path("/java"), 25, "PATH"), Path("/jar"))
    words = server_command(runtime, SETTINGS)
    assert words[-4:] == ["-m", "io.questdb/io.questdb.ServerMain", "-d", "/data/questdb/root"]
    assert f"-Xmx{SETTINGS.heap_mib}m" in words
    assert not any("password" in word for word in words)


def test_passwords_are_generated_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    first = Passwords.load_or_create(path)
    assert Passwords.load_or_create(path) == first
    assert first.admin != first.reader
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.admin not in repr(first)


def test_damaged_passwords_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    path.write_text("{")
    assert Passwords.load_or_create(path).admin
    (aside,) = tmp_path.glob("passwords.json.damaged-*")
    assert aside.read_text() == "{"


def test_endpoint_is_saved_privately_and_hides_its_passwords(tmp_path: Path) -> None:
    endpoint = Endpoint(
        "127.0.0.1", 9000, 8812, user="admin", password="s3cret!", reader_user="r", reader_password="p@ss"
    )
    path = tmp_path / "endpoint.json"
    endpoint.save(path)
    assert Endpoint.load(path) == endpoint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "s3cret!" not in repr(endpoint)
    assert endpoint.reader_url() == "postgresql://r:p%40ss@127.0.0.1:8812/qdb"
    path.write_text(json.dumps({"port": 1}))
    with pytest.raises(InvalidRequest, match=r"endpoint\.json"):
        Endpoint.load(path)


def test_external_server_is_named_by_its_url() -> None:
    endpoint = Endpoint.from_url("http://me:pa%3Ass@db.example:9001")
    assert (endpoint.host, endpoint.http_port, endpoint.user, endpoint.password) == ("db.example", 9001, "me", "pa:ss")
    assert Endpoint.from_url("http://h").pg_user == "admin"
    with pytest.raises(InvalidRequest):
        Endpoint.from_url("localhost:9000")


@pytest.mark.parametrize(
    ("free", "total", "state"),
    [
        (100 * GIB, 200 * GIB, DiskState.OK),
        (2 * GIB, 200 * GIB, DiskState.LOW),
        (GIB, 4 * GIB, DiskState.OK),
        (GIB // 2, 4 * GIB, DiskState.LOW),
        (GIB // 4, 4 * GIB, DiskState.FULL),
    ],
)
def test_disk_is_judged_by_amount_and_share(free: int, total: int, state: DiskState) -> None:
    assert disk_state(free, total, low_bytes=2 * GIB, low_share=0.2, full_bytes=GIB // 4) is state


def test_migrations_are_numbered_without_a_hole_and_repeatable() -> None:
    found = load_migrations()
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        for statement in migration.statements:
            assert "IF NOT EXISTS" in statement, statement


def test_comments_do_not_change_a_migration() -> None:
    first = parse_migration("0001_x.sql", "CREATE TABLE a (b INT); -- one\n-- two\nCREATE TABLE c (d INT);")
    second = parse_migration("0001_x.sql", "CREATE TABLE a\n (b INT);\nCREATE TABLE c (d INT)")
    assert first == second
    assert first.statements == ("CREATE TABLE a (b INT)", "CREATE TABLE c (d INT)")


def test_edited_migration_is_refused_and_unknown_ones_are_left_alone() -> None:
    ours = [Migration(1, "a", ("x",), "d1"), Migration(2, "b", ("y",), "d2")]
    assert pending(ours, {1: "d1", 7: "from a newer program"}) == [ours[1]]
    with pytest.raises(Conflict, match="0001 a"):
        pending(ours, {1: "other"})


def test_log_is_rotated_and_old_ones_go(tmp_path: Path) -> None:
    log = tmp_path / "questdb.log"
    for number in range(5):
        log.write_text(f"{number}" * 100)
        assert rotate_log(log, max_bytes=50, files=2)
    assert not rotate_log(log, max_bytes=50, files=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questdb.log", "questdb.log.1", "questdb.log.2"]
    assert (tmp_path / "questdb.log.1").read_text()[0] == "4"
