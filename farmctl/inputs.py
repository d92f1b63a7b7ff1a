"""A task's input as it stands on a command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest

_JSON_STARTS: Final = ("{", "[", '"')


def task_input(words: list[str]) -> Any:
    """The input that the words mean: nothing, one value, or an object of KEY=VALUE pairs, over a given object."""
    if not words:
        return None
    first_is_pair = _is_pair(words[0])
    value = None if first_is_pair else read_value(words[0])
    pairs = words if first_is_pair else words[1:]
    wrong = [word for word in pairs if not _is_pair(word)]
    if wrong:
        raise InvalidRequest(
            f"{wrong[0]!r} is not KEY=VALUE.", remedy="Put text with spaces in quotes, or write KEY=VALUE pairs."
        )
    if not pairs:
        return value
    if not (first_is_pair or isinstance(value, dict)):
        raise InvalidRequest("KEY=VALUE pairs go into an object; the input before them is none.")
    return (value or {}) | dict(_pair(word) for word in pairs)


def read_value(word: str) -> Any:
    """`-` is stdin, `@FILE` a file, JSON is JSON, any other text is itself."""
    if word == "-":
        return parse(sys.stdin.read(), "stdin")
    if word.startswith("@"):
        path = Path(word[1:]).expanduser()
        try:
            return parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    return parse(word, "the input")


def parse(text: str, source: str) -> Any:
    """JSON where the text is meant as JSON, else the text. Raises InvalidRequest for JSON that is broken."""
    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith(_JSON_STARTS):
            raise InvalidRequest(
                f"{source} is not JSON: {error}.", remedy='Quote it for the shell: \'{"key": "value"}\'.'
            ) from error
        return text


def _is_pair(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.replace("_", "a").replace("-", "a").isalnum()


def _pair(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    return name, read_value(value) if value.startswith("@") else parse_word(value)


def parse_word(text: str) -> Any:
    """A number, true, false, null, or JSON; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
