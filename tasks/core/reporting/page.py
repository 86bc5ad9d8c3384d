"""Jinja templates of the folder beside this, and how numbers are written in them.

A number and its unit are joined by a no-break space. What is absent is an en dash.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.core.config.params import TrainParams
from tasks.core.config.params_file import load_pipeline, parse, read_yaml

NBSP = "\u00a0"
ABSENT = "\u2013"
TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """The template's text. Values are HTML-escaped in `*.html.j2`, and only there."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent, "points": points, "ms": milliseconds, "bytes": size, "count": count,
        "short": short, "times": times, "p_value": p_value, "figure": figure,
        "code": code_span, "key": key,
    }  # fmt: skip
    return environment.get_template(template).render(context)


def settings_of(settings: Path, tune: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """params.yaml as the stages used it, and which keys of `train` came from tuning.

    Raises:
        BadInput: params.yaml or best.yaml is not valid.
    """
    best = tune / "best.yaml"
    found = read_yaml(best) if best.exists() else {}
    used: dict[str, dict[str, Any]] = load_pipeline(settings).model_dump(mode="json", exclude={"registry"})
    used["train"] = parse(TrainParams, {**used["train"], **found}, str(best)).model_dump(mode="json")
    return used, sorted(found)


def percent(fraction: float, digits: int = 2) -> str:
    """0.9213 -> 92.13 %"""
    return f"{100 * fraction:.{digits}f}{NBSP}%" if _known(fraction) else ABSENT


def points(value: float, digits: int = 2) -> str:
    """Percentage points, with a true minus sign and no negative zero."""
    if not _known(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")


def milliseconds(value: float, unit: bool = False) -> str:
    """Three significant digits, no exponent."""
    if not _known(value):
        return ABSENT
    decimals = 2 - math.floor(math.log10(float(f"{value:.3g}"))) if value > 0 else 0
    return f"{value:.{max(0, decimals)}f}" + (f"{NBSP}ms" if unit else "")


def size(value: float) -> str:
    """Bytes in decimal units: 331 kB, 1.24 MB."""
    if not _known(value):
        return ABSENT
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor * 0.9995:
            scaled = value / factor
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{NBSP}{unit}"
    return f"{value:.0f}{NBSP}B"


def count(value: float) -> str:
    """78026 -> 78,026"""
    return f"{value:,.0f}" if _known(value) else ABSENT


def short(value: float) -> str:
    """11700000 -> 11.7 M"""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if _known(value) and value >= factor * 0.9995:
            return milliseconds(value / factor) + NBSP + unit
    return count(value)


def times(value: float) -> str:
    """A factor with two decimals, one from ten on, and the multiplication sign."""
    return f"{value:.{2 if value < 9.995 else 1}f}\u00d7" if _known(value) else ABSENT


def p_value(value: float) -> str:
    """Three decimals; below 0.001 only that it is."""
    if not _known(value):
        return ABSENT
    return f"{value:.3f}" if value >= 0.001 else f"<{NBSP}0.001"


def figure(value: Any) -> str:
    """Any value of a table: floats with four significant digits, lists joined, the rest as it is."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ABSENT}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else ABSENT
    if isinstance(value, list | tuple):
        return ", ".join(figure(v) for v in value)
    return str(value)


def key(name: str) -> Markup:
    """A name of params.yaml, broken between its words where the line is too short."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(name))))


def code_span(text: object) -> str:
    """`text` as Markdown code, whatever it holds, also in a cell of a table."""
    line = " ".join(str(text).split())
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
