"""The description of the API as one page of HTML, made from OpenAPI and from nothing else.

No script and nothing from elsewhere: a farm's network may end at its own switch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #d7dde5;text-transform:capitalize}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f4f6f9;padding:.7rem 1rem;border-radius:6px;overflow:auto}
details{border:1px solid #d7dde5;border-radius:6px;margin:.4rem 0;padding:.3rem .8rem}summary{cursor:pointer}
b{display:inline-block;min-width:4.5rem;font:600 14px ui-monospace,monospace}
.GET{color:#1a6d3c}.POST{color:#1b57a8}.PUT{color:#8a5a00}.DELETE{color:#a8231b}
td{padding:.15rem .8rem .15rem 0;vertical-align:top}small{color:#5b6776}
@media(prefers-color-scheme:dark){body{background:#14181f;color:#dfe5ee}pre{background:#1e242e}
details,h2{border-color:#343c49}small{color:#95a1b2}.GET{color:#6fce95}.POST{color:#7fb2f5}.PUT{color:#e0b060}.DELETE{color:#f08a80}}
"""


def reference_page(schema: Mapping[str, Any]) -> str:
    """The page."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["farm"])[0]
            by_tag.setdefault(tag, []).append(_call(schema, method.upper(), path, operation))
    parts = [f"<h2>{escape(tag)}</h2>" + "".join(calls) for tag, calls in by_tag.items()]
    info = schema["info"]
    about = "<br>".join(escape(line) for line in info["description"].splitlines())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style><h1>{escape(info['title'])}</h1>"
        f"<small>release {escape(info['version'])} · <a href=/openapi.json>openapi.json</a></small><p>{about}</p>"
        + "".join(parts)
    )


def _call(schema: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    rows = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    if rows:
        parts.append(f"<table>{''.join(rows)}</table>")
    body = operation.get("requestBody")
    if body is not None:
        for media_type, content in body["content"].items():
            parts.append(
                f"<p>Body <small>{escape(media_type)}</small></p>{_example(schema, content.get('schema', {}))}"
            )
    for status, answer in operation["responses"].items():
        for media_type, content in (answer.get("content") or {}).items():
            if status != "default":
                parts.append(f"<p>{status} <small>{escape(media_type)}</small></p>"
                             f"{_example(schema, content.get('schema', {}))}")  # fmt: skip
    summary = escape(operation.get("description", "").split(". ")[0].split("\n")[0].rstrip("."))
    head = f"<b class={method}>{method}</b><code>{escape(path)}</code> <small>{summary}</small>"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    need = "needed" if parameter.get("required") else "optional"
    text = escape(parameter.get("description", ""))
    place = f"{escape(parameter['in'])}, {need}"
    return f"<tr><td><code>{escape(parameter['name'])}</code><td><small>{place}</small><td>{text}</tr>"


def _example(schema: Mapping[str, Any], what: Mapping[str, Any]) -> str:
    value = example_of(schema, what)
    return "" if value is None else f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def example_of(schema: Mapping[str, Any], what: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that the described type could have: its own example, or one put together from its parts."""
    if depth > 6:
        return None
    if "$ref" in what:
        return example_of(schema, schema["components"]["schemas"][what["$ref"].rsplit("/", 1)[1]], depth + 1)
    for key in ("examples", "enum"):
        if what.get(key):
            return what[key][0]
    for key in ("default", "const"):
        if key in what:
            return what[key]
    choices = what.get("anyOf") or what.get("oneOf")
    if choices:
        return example_of(schema, choices[0], depth + 1)
    if what.get("type") == "array":
        item = example_of(schema, what.get("items", {}), depth + 1)
        return [] if item is None else [item]
    if "properties" in what:
        return {name: example_of(schema, part, depth + 1) for name, part in what["properties"].items()}
    return {"object": {}, "string": "", "integer": 0, "number": 0.0, "boolean": False}.get(str(what.get("type")))
