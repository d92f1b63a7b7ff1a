"""Names: which are allowed, which one was probably meant, and which one a prefix stands for.

The command line, the gateway and the spec reader use it, so that a typo gets the same answer everywhere.
Pure; knows nothing of what the names belong to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from agentfarm.errors import InvalidRequest, NotFound
from agentfarm.limits import NAME_CHARS_MAX, NAME_PATTERN, PRODUCT_NAME_CHARS_MAX, PRODUCT_PATTERN

NAME_RULE: Final = (
    "A name has lower-case letters, digits and single hyphens, begins with a letter, "
    f"ends with a letter or digit and has at most {NAME_CHARS_MAX} characters."
)

_NAME: Final = re.compile(NAME_PATTERN)
_PRODUCT: Final = re.compile(PRODUCT_PATTERN)
_AMBIGUOUS_SHOWN_MAX: Final = 8
COMPARED_CHARS_MAX: Final = 200
"""Of a word for which a close name is looked for."""


def is_name(text: str) -> bool:
    """Whether the text is a valid name of a node, an agent or a deployment."""
    return len(text) <= NAME_CHARS_MAX and _NAME.fullmatch(text) is not None


def is_product_name(text: str) -> bool:
    """Whether a market product may be called so: letters and digits of ASCII, and - _ . : / inside."""
    return len(text) <= PRODUCT_NAME_CHARS_MAX and _PRODUCT.fullmatch(text) is not None


def check_name(text: str, kind: str = "agent") -> str:
    """The name itself. Raises InvalidRequest with the rule, and a valid name close to it where there is one."""
    if is_name(text):
        return text
    close = name_from(text)
    hint = f" Try {close!r}." if close else ""
    raise InvalidRequest(f"{text!r} cannot be the name of {_a(kind)}.", remedy=f"{NAME_RULE}{hint}", name=text)


def name_from(text: str) -> str:
    """The valid name nearest to a file or folder name: `Question_Answering` becomes `question-answering`.

    Empty when nothing of the text can be kept.
    """
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text).lower())
    joined = "-".join(word for word in words if word).lstrip("0123456789-")
    return joined[:NAME_CHARS_MAX].rstrip("-")


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice a person probably meant by `word`, or None when none is close.

    A choice that differs only in case, hyphens or underscores wins, then one of which the word is a beginning or an
    end, then the most similar (Ratcliff and Obershelp, as in difflib). Ties go to the first in alphabetical order.
    No choice is close to a word beyond COMPARED_CHARS_MAX, because the comparison takes the square of its length.
    """
    if len(word) > COMPARED_CHARS_MAX:
        return None
    ordered = sorted(choices)
    plain = _plain(word)
    for choice in ordered:
        if _plain(choice) == plain:
            return choice
    if len(plain) >= 3:
        for choice in ordered:
            other = _plain(choice)
            if other.startswith(plain) or other.endswith(plain) or (len(other) >= 3 and plain.startswith(other)):
                return choice
    close = difflib.get_close_matches(word.lower(), ordered, n=1, cutoff=0.6)
    return close[0] if close else None


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or an empty string when nothing is close."""
    match = nearest(word, choices)
    return f"Did you mean {match!r}?" if match else ""


def resolve(word: str, names: Iterable[str], kind: str = "agent") -> str:
    """The one name that `word` is, or is the beginning of.

    An exact name wins over longer ones. Raises NotFound with the nearest name, and InvalidRequest when several
    names begin so.
    """
    choices = sorted(set(names))
    if word in choices:
        return word
    matches = [name for name in choices if word and name.startswith(word)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(matches[:_AMBIGUOUS_SHOWN_MAX]) + (", …" if len(matches) > _AMBIGUOUS_SHOWN_MAX else "")
        raise InvalidRequest(
            f"{word!r} is the beginning of {len(matches)} {kind}s: {shown}.",
            remedy="Write one more letter, or the whole name.",
            name=word,
            matches=matches,
        )
    remedy = suggestion(word, choices) or (f"There are: {_few(choices)}." if choices else f"There is no {kind} yet.")
    raise NotFound(f"There is no {kind} {word!r}.", remedy=remedy, kind=kind, name=word, nearest=nearest(word, choices))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _few(names: list[str]) -> str:
    return ", ".join(names[:_AMBIGUOUS_SHOWN_MAX]) + (", …" if len(names) > _AMBIGUOUS_SHOWN_MAX else "")


def _a(kind: str) -> str:
    return f"an {kind}" if kind[:1] in "aeiou" else f"a {kind}"
