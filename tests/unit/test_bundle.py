"""Bundles: equal files give equal bytes, nothing leaves the folder, agents are found by convention."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentfarm.agents import bundle
from agentfarm.agents.bundle import digest_of, is_safe_name, pack, unpack, verify
from agentfarm.agents.ignore import IgnoreRules
from agentfarm.agents.sources import AgentSource, find_agents
from agentfarm.agents.spec import AgentSpec
from agentfarm.errors import InvalidRequest
from agentfarm.limits import DIGEST_PATTERN


def source(root: Path, **options: object) -> AgentSource:
    return AgentSource(AgentSpec(name="x"), root, **options)  # type: ignore[arg-type]


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


parts = st.text("abcXYZ._-é ", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
contents = st.dictionaries(parts.map(lambda part: f"f{part}"), st.binary(max_size=200), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(contents, contents)
def test_equal_files_give_equal_bundles_whatever_their_times_and_order(
    top: dict[str, bytes], inner: dict[str, bytes]
) -> None:
    files = {**top, **{f"d/{name}": data for name, data in inner.items()}}
    with TemporaryDirectory() as folder:
        one, two = Path(folder, "one"), Path(folder, "two")
        write(one, files)
        write(two, dict(reversed(list(files.items()))))
        for age, path in enumerate(two.rglob("*")):
            os.utime(path, (age * 1000, age * 1000))
        first, second = pack(source(one)), pack(source(two))
        assert first == second
        assert first.digest == f"sha256:{hashlib.sha256(first.data).hexdigest()}"
        unpack(first.data, Path(folder, "three"))
        assert tree(Path(folder, "three")) == files


def test_a_changed_byte_name_or_mode_changes_the_digest(tmp_path: Path) -> None:
    base = pack(source(write(tmp_path / "a", {"agent.py": "1"}))).digest
    assert pack(source(write(tmp_path / "b", {"agent.py": "2"}))).digest != base
    assert pack(source(write(tmp_path / "c", {"agent2.py": "1"}))).digest != base
    (write(tmp_path / "d", {"agent.py": "1"}) / "agent.py").chmod(0o755)
    assert pack(source(tmp_path / "d")).digest != base


def test_what_an_agent_does_not_need_stays_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "agent.py": "",
            "data/big.bin": "x",
            "data/keep.bin": "x",
            "notes.log": "",
            ".git/config": "",
            "__pycache__/a.pyc": "",
            ".venv/lib/x.py": "",
            "node_modules/x/y.js": "",
            ".env": "SECRET=1",
            ".farmignore": "# comment\n*.log\n/data/*\n!data/keep.bin\n",
        },
    )
    assert pack(source(tmp_path)).files == (".farmignore", "agent.py", "data/keep.bin")


def test_too_big_a_folder_is_refused_naming_the_biggest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "BUNDLE_MAX_BYTES", 2**20)
    write(tmp_path, {"agent.py": "", "model.bin": b"0" * 2**20, "small.bin": b"0" * 2**10})
    with pytest.raises(InvalidRequest, match=r"model\.bin \(1\.0 MiB\)") as caught:
        pack(source(tmp_path))
    assert ".farmignore" in caught.value.remedy


def test_links_inside_become_files_and_links_outside_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"agent.py": "a", "lib/b.py": "b"})
    (root / "same.py").symlink_to("agent.py")
    (root / "lib" / "circle").symlink_to("..")
    packed = pack(source(root))
    assert packed.files == ("agent.py", "lib/b.py", "same.py")
    (root / "secret").symlink_to("/etc/hostname")
    with pytest.raises(InvalidRequest, match="outside the agent's folder"):
        pack(source(root))
    (root / "secret").unlink()
    (root / "dead").symlink_to("nothing.py")
    with pytest.raises(InvalidRequest, match="does not exist"):
        pack(source(root))


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../out.py"),
        member("/etc/out.py"),
        member("a/../../out.py"),
        member("a//b.py"),
        member("./a.py"),
        member("C:/x"),
        member("a\\b"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "good.py"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
        member("good.py"),
        member("good.py/inside"),
    ],
    ids=lambda info: info.name,
)
def test_hostile_archives_write_nothing(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    data = archive_of((member("good.py"), b"fine"), (bad, b""))
    with pytest.raises(InvalidRequest):
        unpack(data, tmp_path / "farm" / "agent")
    assert [path for path in tmp_path.rglob("*") if path.name != "farm"] == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | st.lists(st.sampled_from(["..", ".", "a", "", "/", "b.py"]), max_size=5).map("/".join))
def test_a_safe_name_stays_inside(name: str) -> None:
    if is_safe_name(name):
        inside = os.path.normpath(os.path.join("/root/folder", name))
        assert inside.startswith("/root/folder/")
        assert os.path.relpath(inside, "/root/folder") == name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_239), st.binary(min_size=1, max_size=40))
def test_damaged_archives_are_refused_or_read_whole(offset: int, noise: bytes) -> None:
    data = bytearray(archive_of((member("a.py"), b"x" * 600), (member("b.py"), b"y")))
    data[offset : offset + len(noise)] = noise
    with TemporaryDirectory() as folder:
        target = Path(folder, "agent")
        try:
            unpack(bytes(data), target)
        except InvalidRequest:
            assert list(Path(folder).iterdir()) == []
        else:
            assert target.is_dir()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    data = archive_of((member("a.py"), b"x" * 60_000))
    for cut in (100, 5_000, 50_000):
        with pytest.raises(InvalidRequest, match="damaged"):
            unpack(data[:cut], tmp_path / "agent")
    with pytest.raises(InvalidRequest, match="damaged"):
        unpack(b"not a tar" * 200, tmp_path / "agent")


def test_unpacking_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar"
    file.write_bytes(pack(source(write(tmp_path / "new", {"agent.py": "new"}))).data)
    target = write(tmp_path / "agent", {"agent.py": "old", "left.py": "old"})
    unpack(file, target)
    assert tree(target) == {"agent.py": b"new"}


def test_a_bundle_is_checked_against_its_name(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar"
    file.write_bytes(b"content")
    verify(b"content", digest_of(b"content"))
    verify(file, digest_of(b"content"))
    assert re.fullmatch(DIGEST_PATTERN, digest_of(b""))
    assert not re.fullmatch(DIGEST_PATTERN, "sha256:../../x")
    with pytest.raises(InvalidRequest, match="does not match its name"):
        verify(b"other", digest_of(b"content"))


PATTERNS = ["*.log", "build/", "/top.txt", "docs/*.md", "**/deep", "a/**/z", "cache/**", "[ab]?.py", "!keep.log",
            "space\\ name", "\\#hash", "x[!0-9].c", "dir/sub/", "*/mid.txt"]  # fmt: skip
PATHS = ["x.log", "a/x.log", "keep.log", "build/f", "a/build/f", "top.txt", "a/top.txt", "docs/a.md", "docs/b/a.md",
         "deep", "q/deep", "a/z", "a/b/z", "a/b/c/z", "cache/f", "aa.py", "ab/b1.py", "c1.py", "space name", "#hash",
         "xa.c", "x1.c", "dir/sub/f", "o/dir/sub/f", "k/mid.txt", "k/l/mid.txt"]  # fmt: skip


def test_ignore_patterns_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    root = write(tmp_path, dict.fromkeys(PATHS, "") | {".gitignore": "\n".join(PATTERNS)})
    git = ["git", "-C", str(root), "-c", "core.excludesFile=/dev/null"]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = subprocess.run([*git, "ls-files", "-o", "--exclude-standard"], check=True, capture_output=True, text=True)
    (root / ".gitignore").rename(root / ".farmignore")
    ours = set(pack(source(root)).files) - {".farmignore"}
    assert ours == {line.strip('"') for line in listed.stdout.splitlines()} - {".gitignore"}
    assert 0 < len(ours) < len(PATHS)


def test_patterns_never_raise() -> None:
    for line in ("[", "[]", "[!]", "[z-a", "\\", "***", "!", "/", "[[:alpha:]]"):
        IgnoreRules.parse([line]).excludes("a/b", is_folder=False)


# ---------------------------------------------------------------- finding agents


def names(path: Path) -> dict[str, str | None]:
    return {agent.name: agent.spec.entry for agent in find_agents(path)}


def test_agents_are_found_by_convention(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "question_answering.py": "graph = 1",
            "question_answering.yaml": "replicas: 4",
            "maker.py": "try:\n    from lib import agent\nexcept ImportError:\n    pass",
            "helpers.py": "def help(): pass",
            "_private.py": "graph = 1",
            "test_maker.py": "graph = 1",
            "market_brief/agent.py": "graph = 1",
            "market_brief/tools.py": "",
            "named/agent.yaml": "name: other\nentry: src/app.py:app",
            "named/src/app.py": "app = 1",
            "empty/readme.md": "",
        },
    )
    assert names(tmp_path) == {
        "question-answering": "question_answering.py",
        "maker": "maker.py",
        "market-brief": "agent.py",
        "other": "src/app.py:app",
    }
    (agent,) = find_agents(tmp_path / "question_answering.py")
    assert agent.spec.replicas == 4
    assert pack(agent).files == ("question_answering.py",)
    assert pack(find_agents(tmp_path / "market_brief")[0]).files == ("agent.py", "tools.py")


def test_a_folder_is_named_even_when_given_as_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "my_agent", {"agent.py": "main = 1"}))
    assert names(Path()) == {"my-agent": "agent.py"}


def test_a_langgraph_project_has_an_agent_per_graph(tmp_path: Path) -> None:
    config = {
        "dependencies": [".", "langchain-openai>=0.3"],
        "graphs": {"research": "./src/research.py:make", "writer": {"path": "./src/writer.py:graph"}},
        "env": ".env",
        "python_version": "3.11",
    }
    root = write(
        tmp_path,
        {
            "langgraph.json": json.dumps(config),
            "pyproject.toml": '[project]\nname="p"\ndependencies=["langgraph"]',
            "src/research.py": "",
            "src/writer.py": "",
            ".env": "KEY=1",
        },
    )
    assert names(root) == {"research": "src/research.py:make", "writer": "src/writer.py:graph"}
    agent = find_agents(root)[0]
    unpack(pack(agent).data, tmp_path / "out")
    assert tree(tmp_path / "out")["requirements.txt"] == b"langgraph\nlangchain-openai>=0.3\n"
    assert ".env" not in tree(tmp_path / "out")
    assert any(".env is not sent" in note for note in agent.notes)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"graphs": {}}, "`graphs` must map"),
        ({"graphs": {"a": "./x.py:graph"}}, "there is no file x.py"),
        ({"graphs": {"a": "x:graph"}}, "is not FILE.py:NAME"),
        ({"graph": {"a": "./x.py:graph"}}, "Did you mean 'graphs'?"),
        ({"graphs": {"a": "agent.py:graph"}, "auth": {}}, "does not have 'auth'"),
    ],
)
def test_a_wrong_langgraph_project_is_refused(tmp_path: Path, config: object, reason: str) -> None:
    write(tmp_path, {"langgraph.json": json.dumps(config), "agent.py": "graph = 1"})
    with pytest.raises(InvalidRequest) as caught:
        find_agents(tmp_path)
    assert reason in str(caught.value)


def test_requirements_inside_a_single_file_reach_the_node(tmp_path: Path) -> None:
    text = '# /// script\n# dependencies = [\n#   "httpx",\n#   "rich>=13",\n# ]\n# ///\nmain = 1\n'
    (agent,) = find_agents(write(tmp_path, {"fetch.py": text}) / "fetch.py")
    assert agent.extra == {"requirements.txt": b"httpx\nrich>=13\n"}
    assert pack(agent).files == ("fetch.py", "requirements.txt")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"readme.md": ""}, "There is no agent in"),
        ({"a.py": "graph ="}, r"a\.py:1: invalid syntax"),
        ({"queue.py": "main = 1"}, "would hide Python's own module 'queue'"),
        ({"a_b.py": "main = 1", "a-b/agent.py": "main = 1"}, "Two agents are named 'a-b'"),
        ({"x/agent.yaml": "replicas: 1"}, "names no entry"),
        ({"x.py": "main = 1", "x.yaml": "entry: y.py"}, "is not in x.py"),
        ({"x.py": "main = 1", "x.yaml": "replcas: 1"}, "Did you mean 'replicas'"),
    ],
)
def test_what_is_no_agent_is_refused_with_a_reason(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        find_agents(write(tmp_path, files))


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="There is no file or folder"):
        find_agents(tmp_path / "nothing")
