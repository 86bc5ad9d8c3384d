"""Charts of the report, as inline SVG that the page's style sheet colours.

Written by hand, not plotted, so that they follow the page's light, dark and print colours and its
typeface, carry links, and are the same bytes from the same numbers. The same scatter by matplotlib is 22 kB
instead of 5, comes after two seconds of imports, has its colours fixed and its labels one on another. Classes `s1`..`s6` are the series' colours;
series differ in dashes or marks too, never in colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from tasks.core.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    chart,
    element,
    frame,
    markup,
    number_text,
    steps,
    text_at,
    unit,
)

CHARACTER = 7.4  # a generous width of one, to keep labels apart
BESIDE = 16  # a label further from its dot than this has a line to it
SERIES = 6
FOREST_WIDTH, FOREST_LEFT, ROW = 880, 190, 22
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Dot:
    """One candidate: x, y, the interval of y, what it is called, and how it is drawn."""

    x: float
    y: float
    low: float
    high: float
    label: str
    kind: str  # "selected", "reference", "within" or "outside"


@dataclass(frozen=True)
class Line:
    """One curve; `tone` picks the colour, and `dashed` and `marks` tell it apart without colour."""

    label: str
    points: list[tuple[float, float]]
    tone: int
    dashed: bool = False
    marks: bool = False


def scatter(
    dots: Sequence[Dot],
    front: Sequence[tuple[float, float]],
    bar: float,
    x_title: str,
    y_title: str,
    name: str,
    summary: str,
) -> Markup:
    """Dots with their intervals, the Pareto `front` as steps, and the region below `bar` shaded."""
    svg = chart(name, summary)
    x = Axis.over([d.x for d in dots], LEFT, WIDTH - RIGHT, zero=True)
    y = Axis.over([v for d in dots for v in (d.low, d.high)] + [bar], HEIGHT - BOTTOM, 2 * TOP)
    edge = y.at(bar)
    element(svg, "rect", "outside-area", x=LEFT, y=edge, width=x.end - LEFT, height=y.start - edge)
    frame(svg, x, y, x_title, y_title)
    element(svg, "line", "bar-line", x1=LEFT, x2=x.end, y1=edge, y2=edge)
    marks = [(x.at(d.x) - 8, y.at(d.y) - 8, x.at(d.x) + 8, y.at(d.y) + 8) for d in dots]
    marks.append(_bar_label(svg, edge, x.end, y.start))
    strokes = [(x.at(d.x) - 2, y.at(d.high), x.at(d.x) + 2, y.at(d.low)) for d in dots]
    if front:
        element(svg, "path", "front", d=steps(front, x, y))
        ends = [x.at(a) for a, _ in front[1:]] + [x.end]
        levels = [y.at(b) for _, b in front]
        strokes += [(x.at(a), b - 1, end, b + 1) for (a, _), b, end in zip(front, levels, ends, strict=True)]
        strokes += [(e - 1, b, e + 1, a) for e, a, b in zip(ends, levels, levels[1:], strict=False)]
    rank = ["selected", "reference", "within", "outside"]
    for dot in sorted(dots, key=lambda d: (-rank.index(d.kind), d.label)):
        _dot(svg, dot, x, y)
    for dot in sorted(dots, key=lambda d: (rank.index(d.kind), d.label)):
        _label(svg, dot, x, y, marks, strokes)
    return markup(svg)


def lines(
    curves: Sequence[Line],
    x_title: str,
    y_title: str,
    name: str,
    summary: str,
    reference: float | None = None,
) -> Markup:
    """Curves over whole numbers of x; `reference` is a dotted level."""
    svg = chart(name, summary)
    points = [p for c in curves for p in c.points]
    levels = [p[1] for p in points] + ([reference] if reference is not None else [])
    x = Axis.counting([p[0] for p in points], LEFT, WIDTH - RIGHT)
    y = Axis.over(levels, HEIGHT - BOTTOM, TOP)
    frame(svg, x, y, x_title, y_title)
    if reference is not None:
        level = y.at(reference)
        element(svg, "line", "level", x1=LEFT, x2=x.end, y1=level, y2=level)
    for curve in curves:
        known = [p for p in curve.points if math.isfinite(p[1])]
        tone = f"s{curve.tone}" + (" dashed" if curve.dashed else "")
        path = " ".join(f"{unit(x.at(a))},{unit(y.at(b))}" for a, b in known)
        element(svg, "polyline", f"curve {tone}", points=path)
        if curve.marks or len(known) == 1:
            for a, b in known:
                element(svg, "circle", f"mark {tone}", cx=x.at(a), cy=y.at(b), r=2.6)
    return markup(svg)


def interval(value: float, low: float, high: float, bar: float, name: str, summary: str) -> Markup:
    """A drop in points as a dot on its interval, against zero and the bar."""
    width, height, line = 220, 52, 17
    svg = chart(name, summary, width, height)
    axis = Axis.over([low, high, value, bar, 0.0], 12, width - 12, ticks=4)
    element(svg, "line", "axis", x1=axis.start, x2=axis.end, y1=line, y2=line)
    marks = [(bar, f"bar {number_text(bar, 2)}", "bar-line")]
    if axis.at(bar) - axis.at(0.0) > 5 * CHARACTER:
        marks.append((0.0, "0", "zero"))
    for position, text, kind in marks:
        at = axis.at(position)
        element(svg, "line", kind, x1=at, x2=at, y1=4, y2=30)
        half = len(text) * CHARACTER / 2
        text_at(svg, min(max(at, half), width - half), 46, text, "tick", "middle")
    element(svg, "line", "whisker", x1=axis.at(low), x2=axis.at(high), y1=line, y2=line)
    element(svg, "circle", "dot selected", cx=axis.at(value), cy=line, r=6)
    return markup(svg)


def forest(rows: Sequence[tuple[str, float, float, float]], x_title: str, name: str, summary: str) -> Markup:
    """Each row's label, and its value as a dot on its interval, against zero."""
    height = TOP + ROW * len(rows) + BOTTOM
    svg = chart(name, summary, FOREST_WIDTH, height)
    x = Axis.over([v for _, *values in rows for v in (*values, 0.0)], FOREST_LEFT, FOREST_WIDTH - RIGHT)
    foot = TOP + ROW * len(rows)
    for at, text in x.ticks():
        element(svg, "line", "grid", x1=at, x2=at, y1=TOP, y2=foot)
        text_at(svg, at, foot + 18, text, "tick", "middle")
    zero = x.at(0.0)
    element(svg, "line", "zero", x1=zero, x2=zero, y1=TOP, y2=foot)
    for i, (label, value, low, high) in enumerate(rows):
        y = TOP + ROW * (i + 0.5)
        told = low > 0 or high < 0
        text_at(svg, FOREST_LEFT - 10, y + 4.5, label, "strong" if told else "tick", "end")
        element(svg, "line", "whisker", x1=x.at(low), x2=x.at(high), y1=y, y2=y)
        dot = element(svg, "circle", "dot selected" if told else "dot", cx=x.at(value), cy=y, r=5)
        SubElement(dot, "title").text = f"{label}: {number_text(value, 2)}"
    text_at(svg, (x.start + x.end) / 2, foot + 38, x_title, "axis-title", "middle")
    return markup(svg)


def swatch(tone: int, dashed: bool = False, marks: bool = False) -> Markup:
    """A short stretch of a curve, for a legend."""
    svg = Element("svg", {"class": "swatch", "viewBox": "0 0 28 12", "aria-hidden": "true"})
    kind = f"s{tone}" + (" dashed" if dashed else "")
    element(svg, "polyline", f"curve {kind}", points="1,6 27,6")
    if marks:
        element(svg, "circle", f"mark {kind}", cx=14, cy=6, r=3)
    return markup(svg)


def _dot(svg: Element, dot: Dot, x: Axis, y: Axis) -> None:
    at, height = x.at(dot.x), y.at(dot.y)
    group = SubElement(svg, "g", {"class": f"candidate {dot.kind}"})
    SubElement(group, "title").text = dot.label
    element(group, "line", "whisker", x1=at, x2=at, y1=y.at(dot.low), y2=y.at(dot.high))
    for end in (dot.low, dot.high):
        element(group, "line", "whisker", x1=at - 4, x2=at + 4, y1=y.at(end), y2=y.at(end))
    if dot.kind == "reference":
        element(group, "rect", "dot", x=at - 6, y=height - 6, width=12, height=12)
    elif dot.kind == "outside":
        cross = f"M{unit(at - 5)} {unit(height - 5)}l10 10m0 -10l-10 10"
        element(group, "path", "cross", d=cross)
    else:
        element(group, "circle", "dot", cx=at, cy=height, r=8 if dot.kind == "selected" else 6)


def _label(svg: Element, dot: Dot, x: Axis, y: Axis, marks: list[Box], strokes: list[Box]) -> None:
    """Write the name at the nearest place where it covers nothing, else where it covers no mark and no other
    name, with a line to the dot if that is not beside it. Where there is none, the table alone names the dot;
    the selected one is always named."""
    at, height = x.at(dot.x), y.at(dot.y)
    kind = "dot-label strong" if dot.kind == "selected" else "dot-label"
    others = [box for box in marks if not _holds(box, at, height)]
    for covered, (left, base, anchor) in product(([*marks, *strokes], marks), _places(at, height)):
        box = _label_box(left, base, anchor, dot.label)
        inside = box[0] >= LEFT + 2 and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
        if not inside or any(_overlap(box, other) for other in covered):
            continue
        end = min(max(at, box[0]), box[2]), min(max(height, box[1]), box[3])
        far = math.hypot(end[0] - at, end[1] - height) > BESIDE
        if far and any(_holds(other, *point) for other in others for point in _between((at, height), end)):
            continue
        if far:
            element(svg, "line", "leader", x1=at, y1=height, x2=end[0], y2=end[1])
        text_at(svg, left, base, dot.label, kind, anchor)
        marks.append(box)
        return
    if dot.kind == "selected":
        anchor = "start" if at < WIDTH / 2 else "end"
        text_at(svg, at, max(11.0, y.at(dot.high) - 6), dot.label, kind, anchor)


def _places(at: float, height: float) -> Iterator[tuple[float, float, str]]:
    """Where the label of a dot may stand, as left, base line and anchor: beside it, then in rings around it."""
    middle = 4.5  # from the base line to the middle of a letter
    for reach in (12, 18, 26, 36, 48, 62, 78, 96, 116):
        for degrees in (0, 180, -30, 30, -150, 150, -60, 60, -120, 120, -90, 90):
            across, down = (reach * f(math.radians(degrees)) for f in (math.cos, math.sin))
            anchor = "middle" if degrees in (-90, 90) else "start" if across > 0 else "end"
            yield at + across, height + down + middle, anchor


def _label_box(left: float, base: float, anchor: str, text: str) -> Box:
    long = len(text) * CHARACTER
    start = left - {"start": 0.0, "end": long, "middle": long / 2}[anchor]
    return start, base - 11, start + long, base + 3


def _between(one: tuple[float, float], other: tuple[float, float]) -> list[tuple[float, float]]:
    """Points along a line, close enough together to meet whatever it crosses."""
    parts = [i / 24 for i in range(25)]
    return [(one[0] + t * (other[0] - one[0]), one[1] + t * (other[1] - one[1])) for t in parts]


def _bar_label(svg: Element, edge: float, right: float, bottom: float) -> Box:
    """Name the region below the line: in its lower corner when there is room, else above the line."""
    text = "outside the bar"
    base = bottom - 7 if bottom - edge >= 22 else edge - 6
    text_at(svg, right - 4, base, text, "bar-label", "end")
    return (right - 4 - len(text) * CHARACTER, base - 12, right, base + 4)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
