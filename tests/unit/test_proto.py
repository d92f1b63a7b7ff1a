"""The contract only grows: lint, breaking changes against the last release's descriptor, and stale generated code.

`proto/released.binpb` is the descriptor of the last release. A change that adds is accepted as it is; the file is
renewed when a release is made (see CONTRIBUTING.md).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

from controller.link.services import SERVICES

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto" / "agentfarm" / "v1"


FILES = sorted(f"agentfarm/wire/{path.name}" for path in PROTO.glob("*.proto"))
WITH_CALLS = ["agentfarm/wire/link.proto"]
"""Only these have calls; the others are messages that travel in them."""


def describe(out: Path) -> list[FileDescriptorProto]:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", f"agentfarm/wire={PROTO}"]
    subprocess.run([*command, f"--descriptor_set_out={out}", *FILES], check=True, cwd=ROOT)
    return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def released() -> list[FileDescriptorProto]:
    stored = (ROOT / "proto" / "released.binpb").read_bytes()
    return list(descriptor_pb2.FileDescriptorSet.FromString(stored).file)


def test_generated_code_is_current(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", f"agentfarm/wire={PROTO}"]
    subprocess.run([*command, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *FILES], check=True, cwd=ROOT)
    subprocess.run([*command, f"--grpc_python_out={tmp_path}", *WITH_CALLS], check=True, cwd=ROOT)
    made = {path.name: path.read_text() for path in (tmp_path / "agentfarm" / "wire").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "agentfarm" / "wire").glob("*_pb2*.py*")}
    assert made.keys() == committed.keys(), "run `make wire`, and delete what no proto file makes any more"
    for name, text in made.items():
        assert committed[name] == text, f"{name} is stale: run `make wire`"


def test_every_service_of_a_node_has_messages_that_the_check_sees(tmp_path: Path) -> None:
    """A payload that is no message of a proto file could change unnoticed."""
    names = {message.name for file in describe(tmp_path / "d") for message in file.message_type}
    for name in SERVICES:
        assert {f"{name.capitalize()}{part}" for part in ("Hello", "Desired", "Report", "Question")} & names, name


def test_lint(tmp_path: Path) -> None:
    problems = [problem for file in describe(tmp_path / "d") for problem in lint(file)]
    assert not problems, "\n".join(problems)


def lint(file: FileDescriptorProto) -> list[str]:
    problems = []
    if not re.fullmatch(r"agentfarm\.v\d+", file.package):
        problems.append(f"package {file.package} must end in its version")
    for enum in file.enum_type:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
        if enum.value[0].number != 0 or enum.value[0].name != f"{prefix}_UNSPECIFIED":
            problems.append(f"enum {enum.name} must begin with {prefix}_UNSPECIFIED = 0")
        problems += [f"{v.name} must begin with {prefix}_" for v in enum.value if not v.name.startswith(f"{prefix}_")]
    for message in file.message_type:
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", message.name):
            problems.append(f"message {message.name} must be CamelCase")
        problems += [
            f"{message.name}.{field.name} must be lower_snake_case"
            for field in message.field
            if not re.fullmatch(r"[a-z][a-z0-9_]*", field.name)
        ]
    for service in file.service:
        problems += [f"rpc {m.name} must be CamelCase" for m in service.method if not re.match(r"[A-Z]", m.name)]
    return problems


def test_contract_only_grows(tmp_path: Path) -> None:
    problems = list(breaking_changes(released(), describe(tmp_path / "d")))
    assert not problems, "\n".join(problems)


def test_a_removed_field_and_a_changed_type_are_noticed() -> None:
    before, after = released(), released()
    beat = next(m for file in after for m in file.message_type if m.name == "Beat")
    del beat.field[0]
    hello = next(m for file in after for m in file.message_type if m.name == "Hello")
    next(f for f in hello.field if f.name == "protocol").type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    problems = "\n".join(breaking_changes(before, after))
    assert "Beat.seq" in problems
    assert "Hello.protocol" in problems


def test_a_message_may_move_to_another_file_and_not_get_lost(tmp_path: Path) -> None:
    before = describe(tmp_path / "d")
    assert len(before) > 1
    moved = [FileDescriptorProto.FromString(file.SerializeToString()) for file in before]
    lost = moved[-1].message_type.pop()
    assert list(breaking_changes(before, moved)) == [f"message {lost.name} is gone"]
    moved[0].message_type.append(lost)
    assert not list(breaking_changes(before, moved))


def breaking_changes(before: list[FileDescriptorProto], after: list[FileDescriptorProto]) -> Iterator[str]:
    """Everything in `after` that a peer built from `before` would trip over. All files are of one package."""
    messages = {message.name: message for file in after for message in file.message_type}
    for message in (message for file in before for message in file.message_type):
        if message.name not in messages:
            yield f"message {message.name} is gone"
        else:
            yield from _broken_fields(message, messages[message.name])
    enums = {enum.name: enum for file in after for enum in file.enum_type}
    for enum in (enum for file in before for enum in file.enum_type):
        if enum.name not in enums:
            yield f"enum {enum.name} is gone"
        else:
            yield from _broken_values(enum, enums[enum.name])
    methods = {(s.name, m.name): m for file in after for s in file.service for m in s.method}
    for service in (service for file in before for service in file.service):
        for method in service.method:
            now = methods.get((service.name, method.name))
            if now is None or (now.input_type, now.output_type, now.client_streaming, now.server_streaming) != (
                method.input_type, method.output_type, method.client_streaming, method.server_streaming,
            ):  # fmt: skip
                yield f"rpc {service.name}.{method.name} is gone or changed"


def _broken_fields(before: DescriptorProto, after: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in after.field}
    reserved = {n for span in after.reserved_range for n in range(span.start, span.end)}
    for field in before.field:
        now = fields.get(field.number)
        if now is None:
            if field.number not in reserved or field.name not in after.reserved_name:
                yield f"{before.name}.{field.name} is gone without being reserved"
        elif (now.name, now.type, now.type_name, now.label) != (field.name, field.type, field.type_name, field.label):
            yield f"{before.name}.{field.name} changed its name, type or label"


def _broken_values(before: EnumDescriptorProto, after: EnumDescriptorProto) -> Iterator[str]:
    values = {value.number: value.name for value in after.value}
    for value in before.value:
        if values.get(value.number) != value.name:
            yield f"{before.name}.{value.name} is gone or renumbered"
