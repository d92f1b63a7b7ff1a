"""Tracebacks as an agent's author wants them: the agent's own lines, under the names the author knows."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

TRACEBACK_CHARACTERS_MAX: Final = 20_000
FOREIGN_FRAMES_MAX: Final = 3
"""Shown of an error that has no line of the agent in its traceback."""
_OURS: Final = tuple(f"{Path(__file__).resolve().parents[2]}/{name}/" for name in ("agentfarm", "nodeagent"))


def agent_traceback(error: BaseException, folder: Path) -> str:
    """The traceback with the agent's own frames only, files named relative to its folder; causes are kept.

    The last frame is shown too where it is in a library: it says what failed below the agent's line. Long texts lose
    their middle.
    """
    summary = traceback.TracebackException.from_exception(error, compact=True)
    _trim(summary, f"{folder.resolve()}/", set())
    text = "".join(summary.format()).rstrip().replace(f"{folder.resolve()}/", "")
    if len(text) <= TRACEBACK_CHARACTERS_MAX:
        return text
    half = TRACEBACK_CHARACTERS_MAX // 2
    return f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _trim(summary: traceback.TracebackException | None, prefix: str, seen: set[int]) -> None:
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    frames = list(summary.stack)
    own = [index for index, frame in enumerate(frames) if frame.filename.startswith(prefix) or _is_shown(frame)]
    shown = [frames[index] for index in own]
    if own and own[-1] != len(frames) - 1:
        shown.append(frames[-1])
    if not own:
        shown = [frame for frame in frames if not frame.filename.startswith(_OURS)][-FOREIGN_FRAMES_MAX:]
    summary.stack = traceback.StackSummary.from_list(shown) if shown else None  # type: ignore[assignment] # says no head
    _trim(summary.__cause__, prefix, seen)
    _trim(summary.__context__, prefix, seen)
    for inner in summary.exceptions or ():
        _trim(inner, prefix, seen)


def _is_shown(frame: traceback.FrameSummary) -> bool:
    """Frames of a notebook or of exec have no file and are the author's."""
    return frame.filename.startswith("<ipython")
