"""Charts of the report, as inline SVG that the page's style sheet colours.

Written by hand, not plotted, so that they follow the page's light, dark and print colours and its
typeface, are a few kB each, and are the same bytes from the same numbers. Coordinates are in units
of a view box of WIDTH x HEIGHT; text is 13 units high. Classes `s1`..`s6` are the series' colours;
series differ in dashes or marks too, never in colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44  # margins around the plotting area
CHARACTER = 7.4  # a generous width of one, to keep labels apart
SERIES = 6
Box = tuple[float, float, float, float]  # left, top, right, bottom


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
            low, high = (0.0, high * 1.2) if zero and high > 0 else (low - 0.5, high + 0.5)
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
        return [(self.at(v), _number(v, decimals)) for v in values]


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
    svg = _svg(name, summary)
    x = Axis.over([d.x for d in dots], LEFT, WIDTH - RIGHT, zero=True)
    y = Axis.over([v for d in dots for v in (d.low, d.high)] + [bar], HEIGHT - BOTTOM, 2 * TOP)
    edge = y.at(bar)
    _element(svg, "rect", "outside-area", x=LEFT, y=edge, width=x.end - LEFT, height=y.start - edge)
    _frame(svg, x, y, x_title, y_title)
    _element(svg, "line", "bar-line", x1=LEFT, x2=x.end, y1=edge, y2=edge)
    boxes = [(x.at(d.x) - 8, y.at(d.y) - 8, x.at(d.x) + 8, y.at(d.y) + 8) for d in dots]
    boxes += [(x.at(d.x) - 2, y.at(d.high), x.at(d.x) + 2, y.at(d.low)) for d in dots]
    boxes.append(_bar_label(svg, edge, x.end, y.start))
    if front:
        _element(svg, "path", "front", d=_steps(front, x, y))
        ends = [x.at(a) for a, _ in front[1:]] + [x.end]
        levels = [y.at(b) for _, b in front]
        boxes += [(x.at(a), b - 1, end, b + 1) for (a, _), b, end in zip(front, levels, ends, strict=True)]
    rank = ["selected", "reference", "within", "outside"]
    for dot in sorted(dots, key=lambda d: (-rank.index(d.kind), d.label)):
        _dot(svg, dot, x, y)
    for dot in sorted(dots, key=lambda d: (rank.index(d.kind), d.label)):
        _label(svg, dot, x, y, boxes)
    return _markup(svg)


def lines(
    curves: Sequence[Line],
    x_title: str,
    y_title: str,
    name: str,
    summary: str,
    reference: float | None = None,
) -> Markup:
    """Curves over whole numbers of x; `reference` is a dotted level."""
    svg = _svg(name, summary)
    points = [p for c in curves for p in c.points]
    levels = [p[1] for p in points] + ([reference] if reference is not None else [])
    x = Axis.counting([p[0] for p in points], LEFT, WIDTH - RIGHT)
    y = Axis.over(levels, HEIGHT - BOTTOM, TOP)
    _frame(svg, x, y, x_title, y_title)
    if reference is not None:
        level = y.at(reference)
        _element(svg, "line", "level", x1=LEFT, x2=x.end, y1=level, y2=level)
    for curve in curves:
        known = [p for p in curve.points if math.isfinite(p[1])]
        tone = f"s{curve.tone}" + (" dashed" if curve.dashed else "")
        path = " ".join(f"{_unit(x.at(a))},{_unit(y.at(b))}" for a, b in known)
        _element(svg, "polyline", f"curve {tone}", points=path)
        if curve.marks or len(known) == 1:
            for a, b in known:
                _element(svg, "circle", f"mark {tone}", cx=x.at(a), cy=y.at(b), r=2.6)
    return _markup(svg)


def trials(
    values: Sequence[tuple[int, float]],
    best: Sequence[tuple[int, float]],
    name: str,
    summary: str,
    y_title: str = "Validation accuracy, %",
) -> Markup:
    """The value of each trial as a ring, and the best so far as steps."""
    svg = _svg(name, summary)
    x = Axis.counting([n for n, _ in [*values, *best]], LEFT, WIDTH - RIGHT)
    y = Axis.over([v for _, v in [*values, *best]], HEIGHT - BOTTOM, TOP)
    _frame(svg, x, y, "Trial", y_title)
    if best:
        _element(svg, "path", "curve s1", d=_steps(best, x, y, end=False))
    for number, value in values:
        _element(svg, "circle", "ring s2", cx=x.at(number), cy=y.at(value), r=4)
    return _markup(svg)


@dataclass(frozen=True)
class Design:
    """A design of the search: x, y, what it is called, whether it is on the front or was fine-tuned, and the
    page that it opens, if any."""

    x: float
    y: float
    label: str
    front: bool
    finetuned: bool
    href: str = ""


def designs(points: Sequence[Design], x_title: str, name: str, summary: str) -> Markup:
    """Every design tried as a ring, those on the front joined by steps, the fine-tuned ones filled."""
    svg = _svg(name, summary)
    x = Axis.over([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = Axis.over([p.y for p in points], HEIGHT - BOTTOM, TOP)
    _frame(svg, x, y, x_title, "Accuracy untrained, %")
    front = sorted((p.x, p.y) for p in points if p.front)
    corners = [
        corner
        for (a, b), (_, d) in zip(front, [*front[1:], front[-1]], strict=True)
        for corner in ((a, b), (a, d))
    ]
    path = "L".join(f"{_unit(x.at(a))} {_unit(y.at(b))}" for a, b in corners)
    _element(svg, "path", "front", d=f"M{path}")
    for point in sorted(points, key=lambda p: (p.finetuned, p.front)):
        parent = SubElement(svg, "a", {"href": point.href}) if point.href else svg
        tone = "s1" if point.front else "s2"
        kind = f"mark {tone}" if point.finetuned else f"ring {tone}"
        ring = _element(
            parent, "circle", kind, cx=x.at(point.x), cy=y.at(point.y), r=6 if point.finetuned else 4
        )
        SubElement(ring, "title").text = point.label
    return _markup(svg)


def interval(value: float, low: float, high: float, bar: float, name: str, summary: str) -> Markup:
    """A drop in points as a dot on its interval, against zero and the bar."""
    width, height, line = 220, 52, 17
    svg = _svg(name, summary, width, height)
    axis = Axis.over([low, high, value, bar, 0.0], 12, width - 12, ticks=4)
    _element(svg, "line", "axis", x1=axis.start, x2=axis.end, y1=line, y2=line)
    marks = [(bar, f"bar {_number(bar, 2)}", "bar-line")]
    if axis.at(bar) - axis.at(0.0) > 5 * CHARACTER:
        marks.append((0.0, "0", "zero"))
    for position, text, kind in marks:
        at = axis.at(position)
        _element(svg, "line", kind, x1=at, x2=at, y1=4, y2=30)
        half = len(text) * CHARACTER / 2
        _text(svg, min(max(at, half), width - half), 46, text, "tick", "middle")
    _element(svg, "line", "whisker", x1=axis.at(low), x2=axis.at(high), y1=line, y2=line)
    _element(svg, "circle", "dot selected", cx=axis.at(value), cy=line, r=6)
    return _markup(svg)


def swatch(tone: int, dashed: bool = False, marks: bool = False) -> Markup:
    """A short stretch of a curve, for a legend."""
    svg = Element("svg", {"class": "swatch", "viewBox": "0 0 28 12", "aria-hidden": "true"})
    kind = f"s{tone}" + (" dashed" if dashed else "")
    _element(svg, "polyline", f"curve {kind}", points="1,6 27,6")
    if marks:
        _element(svg, "circle", f"mark {kind}", cx=14, cy=6, r=3)
    return _markup(svg)


def _svg(name: str, summary: str, width: int = WIDTH, height: int = HEIGHT) -> Element:
    attributes = {
        "class": "chart",
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-labelledby": f"{name}-title",
    }
    svg = Element("svg", attributes)
    SubElement(svg, "title", {"id": f"{name}-title"}).text = summary
    return svg


def _frame(svg: Element, x: Axis, y: Axis, x_title: str, y_title: str) -> None:
    for at, text in y.ticks():
        _element(svg, "line", "grid", x1=x.start, x2=x.end, y1=at, y2=at)
        _text(svg, x.start - 7, at + 4.5, text, "tick", "end")
    for at, text in x.ticks():
        _element(svg, "line", "axis", x1=at, x2=at, y1=y.start, y2=y.start + 4)
        _text(svg, at, y.start + 18, text, "tick", "middle")
    _element(svg, "line", "axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    _text(svg, (x.start + x.end) / 2, y.start + 38, x_title, "axis-title", "middle")
    middle = (y.start + y.end) / 2
    title = _text(svg, 11, middle, y_title, "axis-title", "middle")
    title.set("transform", f"rotate(-90 11 {_unit(middle)})")


def _dot(svg: Element, dot: Dot, x: Axis, y: Axis) -> None:
    at, height = x.at(dot.x), y.at(dot.y)
    group = SubElement(svg, "g", {"class": f"candidate {dot.kind}"})
    SubElement(group, "title").text = dot.label
    _element(group, "line", "whisker", x1=at, x2=at, y1=y.at(dot.low), y2=y.at(dot.high))
    for end in (dot.low, dot.high):
        _element(group, "line", "whisker", x1=at - 4, x2=at + 4, y1=y.at(end), y2=y.at(end))
    if dot.kind == "reference":
        _element(group, "rect", "dot", x=at - 6, y=height - 6, width=12, height=12)
    elif dot.kind == "outside":
        cross = f"M{_unit(at - 5)} {_unit(height - 5)}l10 10m0 -10l-10 10"
        _element(group, "path", "cross", d=cross)
    else:
        _element(group, "circle", "dot", cx=at, cy=height, r=8 if dot.kind == "selected" else 6)


def _label(svg: Element, dot: Dot, x: Axis, y: Axis, boxes: list[Box]) -> None:
    """Write the name at the nearest place where it covers nothing. Where there is none, the table alone
    names the dot; the selected one is always named."""
    at, long = x.at(dot.x), len(dot.label) * CHARACTER
    kind = "dot-label strong" if dot.kind == "selected" else "dot-label"
    places = list(_places(dot, x, y))
    for left, base, anchor in places:
        start = left - {"start": 0.0, "end": long, "middle": long / 2}[anchor]
        box = (start, base - 11, start + long, base + 3)
        inside = box[0] >= LEFT + 2 and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in boxes):
            _text(svg, left, base, dot.label, kind, anchor)
            boxes.append(box)
            return
    if dot.kind == "selected":
        anchor = "start" if at < WIDTH / 2 else "end"
        _text(svg, at, max(11.0, y.at(dot.high) - 6), dot.label, kind, anchor)


def _places(dot: Dot, x: Axis, y: Axis) -> Iterator[tuple[float, float, str]]:
    """Where a label may stand, the best first: beside the dot, then along its interval, then off its ends."""
    at, height, top, bottom = x.at(dot.x), y.at(dot.y), y.at(dot.high), y.at(dot.low)
    for side, anchor in ((12, "start"), (-12, "end")):
        yield at + side, height + 4.5, anchor
    for shift in range(7, 70, 7):
        for sign in (-1, 1):
            base = height + 4.5 + sign * shift
            if top <= base <= bottom + 8:
                yield at + 7, base, "start"
                yield at - 7, base, "end"
    reach = 12 if top > height - 10 else 6  # an interval shorter than the mark does not clear it
    for gap in (reach, reach + 14):
        for base in (top - gap, bottom + gap + 9):
            for anchor in ("middle", "start", "end"):
                yield at, base, anchor


def _bar_label(svg: Element, edge: float, right: float, bottom: float) -> Box:
    """Name the region below the line: in its lower corner when there is room, else above the line."""
    text = "outside the bar"
    base = bottom - 7 if bottom - edge >= 22 else edge - 6
    _text(svg, right - 4, base, text, "bar-label", "end")
    return (right - 4 - len(text) * CHARACTER, base - 12, right, base + 4)


def _steps(points: Sequence[tuple[float, float]], x: Axis, y: Axis, end: bool = True) -> str:
    """A path that keeps a level until the next point, on to the right edge when `end`."""
    path = f"M{_unit(x.at(points[0][0]))} {_unit(y.at(points[0][1]))}"
    path += "".join(f"H{_unit(x.at(a))}V{_unit(y.at(b))}" for a, b in points[1:])
    return path + (f"H{_unit(x.end)}" if end else "")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _element(parent: Element, tag: str, kind: str, **attributes: float | str) -> Element:
    values = {k: v if isinstance(v, str) else _unit(v) for k, v in attributes.items()}
    return SubElement(parent, tag, {"class": kind, **values})


def _text(parent: Element, x: float, y: float, text: str, kind: str, anchor: str) -> Element:
    label = _element(parent, "text", kind, x=x, y=y)
    label.set("text-anchor", anchor)
    label.text = text
    return label


def _markup(svg: Element) -> Markup:
    """Safe to place in HTML: ElementTree has escaped every text and attribute."""
    return Markup(tostring(svg, encoding="unicode"))


def _unit(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")


def _round_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
