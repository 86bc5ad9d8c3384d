"""What a user of a candidate should know before shipping it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.core.evaluation.candidates import Candidate
from tasks.core.reporting.page import milliseconds


def weaknesses(name: str, rows: Mapping[str, Candidate], detail: Mapping[str, Any]) -> list[str]:
    """In a sentence each; none for a candidate without.

    Args:
        name: the candidate.
        rows: all of them, for its own form in fp32: the same name with another scheme.
        detail: its entry in accuracy.json, with the warning of the stage that made it, if any.
    """
    found = [f"{name}: {detail['warning']}."] if detail.get("warning") else []
    origin, _, scheme = name.rpartition("-")
    plain, integer = rows.get(f"{origin}-fp32"), rows[name]
    if scheme.startswith("int8") and plain is not None and integer.p50_ms_b1_t1 > plain.p50_ms_b1_t1:
        found.append(
            f"{name} is slower than {plain.name} at one image on one thread: "
            f"{milliseconds(integer.p50_ms_b1_t1, unit=True)} against "
            f"{milliseconds(plain.p50_ms_b1_t1, unit=True)}."
        )
    return found
