"""Inline SVG by hand: scales, frames and elements, of which the report's charts are made.

Coordinates are in units of a view box of WIDTH x HEIGHT; text is 13 units high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44  # margins around the plotting area


@dataclass(frozen=True)
class Axis:
    """A linear scale of values onto view-box units, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, ticks: int = 5, zero: bool = False
    ) -> Axis:
        """An axis that holds all finite `values`, and 0 when `zero`, its ends on a tick."""
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        step = _round_step((high - low) / ticks)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high, start, end, step)

    @classmethod
    def counting(cls, numbers: Sequence[float], start: float, end: float) -> Axis:
        """An axis of whole numbers (epochs, trials)."""
        low, high = min(numbers, default=0), max(numbers, default=1)
        step = max(1.0, _round_step(max(1.0, high - low) / 6))
        low = math.floor(low / step) * step
        return cls(low, max(low + step, math.ceil(high / step) * step), start, end, step)

    def at(self, value: float) -> float:
        """Where `value` lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and their labels, all with the same number of decimals."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        number = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(number + 1)]
        return [(self.at(v), number_text(v, decimals)) for v in values]


def chart(name: str, summary: str, width: int = WIDTH, height: int = HEIGHT) -> Element:
    """An empty picture with a title that screen readers say; `name` must be unique in the page."""
    attributes = {
        "class": "chart",
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-labelledby": f"{name}-title",
    }
    svg = Element("svg", attributes)
    SubElement(svg, "title", {"id": f"{name}-title"}).text = summary
    return svg


def frame(svg: Element, x: Axis, y: Axis, x_title: str, y_title: str) -> None:
    """Draw both axes with their ticks and titles, and a line across for each tick of y."""
    for at, text in y.ticks():
        element(svg, "line", "grid", x1=x.start, x2=x.end, y1=at, y2=at)
        text_at(svg, x.start - 7, at + 4.5, text, "tick", "end")
    for at, text in x.ticks():
        element(svg, "line", "axis", x1=at, x2=at, y1=y.start, y2=y.start + 4)
        text_at(svg, at, y.start + 18, text, "tick", "middle")
    element(svg, "line", "axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    text_at(svg, (x.start + x.end) / 2, y.start + 38, x_title, "axis-title", "middle")
    middle = (y.start + y.end) / 2
    title = text_at(svg, 11, middle, y_title, "axis-title", "middle")
    title.set("transform", f"rotate(-90 11 {unit(middle)})")


def steps(points: Sequence[tuple[float, float]], x: Axis, y: Axis, end: bool = True) -> str:
    """A path that keeps a level until the next point, on to the right edge when `end`."""
    path = f"M{unit(x.at(points[0][0]))} {unit(y.at(points[0][1]))}"
    path += "".join(f"H{unit(x.at(a))}V{unit(y.at(b))}" for a, b in points[1:])
    return path + (f"H{unit(x.end)}" if end else "")


def element(parent: Element, tag: str, kind: str, **attributes: float | str) -> Element:
    """A new element in `parent`; `kind` is its class, numbers are written with at most one decimal."""
    values = {k: v if isinstance(v, str) else unit(v) for k, v in attributes.items()}
    return SubElement(parent, tag, {"class": kind, **values})


def text_at(parent: Element, x: float, y: float, text: str, kind: str, anchor: str) -> Element:
    """A line of text; `anchor` is start, middle or end."""
    label = element(parent, "text", kind, x=x, y=y)
    label.set("text-anchor", anchor)
    label.text = text
    return label


def markup(svg: Element) -> Markup:
    """Safe to place in HTML: ElementTree has escaped every text and attribute."""
    return Markup(tostring(svg, encoding="unicode"))


def unit(value: float) -> str:
    """A length with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def number_text(value: float, decimals: int) -> str:
    """A number for people: with a true minus sign, and no negative zero."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")


def _round_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
