"""Amounts as people write them (`100m`, `128Mi`, `1m30s`) and as the farm keeps them (millicores, MiB, seconds).

Pure. Each reader takes what YAML made of the text (a string or a number) and returns one plain unit. It raises
ValueError with what is allowed, as the end of a sentence that begins with the key.
"""

from __future__ import annotations

import math
import re
from typing import Final

CPU_RULE: Final = "must be cores (1, 0.5) or millicores (100m)"
MEMORY_RULE: Final = "must be an amount of memory with its unit (128Mi, 2Gi, 500M)"
DURATION_RULE: Final = "must be a duration with its unit (500ms, 30s, 10m, 1h30m)"

_BYTES: Final = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MIB: Final = 2**20


def cpu_millicores(value: object) -> int:
    """Millicores, rounded up."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _whole(value * 1000, CPU_RULE)
    match = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in ("", "m"):
        raise ValueError(CPU_RULE)
    return _whole(float(match[1]) * (1 if match[2] else 1000), CPU_RULE)


def memory_mib(value: object) -> int:
    """MiB, rounded up. A number without a unit is refused: it could mean bytes or MiB."""
    match = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in _BYTES:
        raise ValueError(MEMORY_RULE)
    return _whole(float(match[1]) * _BYTES[match[2]] / _MIB, MEMORY_RULE)


def duration_s(value: object) -> float:
    """Seconds. Zero needs no unit; any other number without one is refused."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    if not _DURATION.fullmatch(text):
        raise ValueError(DURATION_RULE)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if not math.isfinite(seconds):
        raise ValueError(DURATION_RULE)
    return round(seconds, 6)


def show_cpu(millicores: int) -> str:
    """The shortest text that reads back as this many millicores."""
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def show_memory(mib: int) -> str:
    """The shortest text that reads back as this many MiB."""
    return f"{mib // 1024}Gi" if mib and mib % 1024 == 0 else f"{mib}Mi"


def show_duration(seconds: float) -> str:
    """A text that reads back as this duration: `90s`, `10m`, `1.5s`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{f'{seconds:.6f}'.rstrip('0').rstrip('.')}s"


def _whole(amount: float, rule: str) -> int:
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(rule)
    return math.ceil(round(amount, 6))
