"""Charts of searches: trials one after another, designs by what they are worth, and trials by their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement

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
    steps,
    text_at,
    unit,
)

WIDE = 2 * WIDTH
SIDE, FOOT = 64, 34  # margins of parallel coordinates


def trials(
    values: Sequence[tuple[int, float]],
    best: Sequence[tuple[int, float]],
    name: str,
    summary: str,
    y_title: str = "Validation accuracy, %",
) -> Markup:
    """The value of each trial as a ring, and the best so far as steps."""
    svg = chart(name, summary)
    x = Axis.counting([n for n, _ in [*values, *best]], LEFT, WIDTH - RIGHT)
    y = Axis.over([v for _, v in [*values, *best]], HEIGHT - BOTTOM, TOP)
    frame(svg, x, y, "Trial", y_title)
    if best:
        element(svg, "path", "curve s1", d=steps(best, x, y, end=False))
    for number, value in values:
        element(svg, "circle", "ring s2", cx=x.at(number), cy=y.at(value), r=4)
    return markup(svg)


@dataclass(frozen=True)
class Design:
    """A design of the search: x, y, what it is called, whether it is on the front, whether it became a
    candidate, and the page that it opens, if any."""

    x: float
    y: float
    label: str
    front: bool
    candidate: bool
    href: str = ""


def designs(points: Sequence[Design], x_title: str, name: str, summary: str) -> Markup:
    """Every design tried as a ring, those on the front joined by steps, the candidates filled."""
    svg = chart(name, summary)
    x = Axis.over([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = Axis.over([p.y for p in points], HEIGHT - BOTTOM, TOP)
    frame(svg, x, y, x_title, "Accuracy untrained, %")
    front = sorted((p.x, p.y) for p in points if p.front)
    corners = [
        corner
        for (a, b), (_, d) in zip(front, [*front[1:], front[-1]], strict=True)
        for corner in ((a, b), (a, d))
    ]
    path = "L".join(f"{unit(x.at(a))} {unit(y.at(b))}" for a, b in corners)
    element(svg, "path", "front", d=f"M{path}")
    for point in sorted(points, key=lambda p: (p.candidate, p.front)):
        parent = SubElement(svg, "a", {"href": point.href}) if point.href else svg
        tone = "s1" if point.front else "s2"
        kind = f"mark {tone}" if point.candidate else f"ring {tone}"
        ring = element(
            parent, "circle", kind, cx=x.at(point.x), cy=y.at(point.y), r=6 if point.candidate else 4
        )
        SubElement(ring, "title").text = point.label
    return markup(svg)


@dataclass(frozen=True)
class Coordinate:
    """One upright axis: what it is called, and what stands at its lower and upper end."""

    name: str
    low: str
    high: str


@dataclass(frozen=True)
class Track:
    """A trial across all axes: heights from 0 to 1, None where it has no value; what it is called; the tone."""

    heights: list[float | None]
    label: str
    tone: int
    dashed: bool = False


def coordinates(axes: Sequence[Coordinate], tracks: Sequence[Track], name: str, summary: str) -> Markup:
    """Parallel coordinates (Inselberg 1985): an axis a value, a line a trial. Later tracks lie above earlier ones."""
    svg = chart(name, summary, WIDE, HEIGHT)
    low, high = HEIGHT - FOOT, TOP + 16
    gap = (WIDE - 2 * SIDE) / max(1, len(axes) - 1)
    for i, axis in enumerate(axes):
        x = SIDE + i * gap
        element(svg, "line", "axis", x1=x, x2=x, y1=low, y2=high)
        text_at(svg, x, high - 6, axis.high, "tick", "middle")
        text_at(svg, x, low + 15, axis.low, "tick", "middle")
        text_at(svg, x, low + 31, axis.name, "axis-title", "middle")
    for track in tracks:
        known = [(i, h) for i, h in enumerate(track.heights) if h is not None]
        points = " ".join(f"{unit(SIDE + i * gap)},{unit(low + h * (high - low))}" for i, h in known)
        kind = f"curve thin s{track.tone}" + (" dashed" if track.dashed else "")
        line = element(svg, "polyline", kind, points=points)
        SubElement(line, "title").text = track.label
    return markup(svg)
