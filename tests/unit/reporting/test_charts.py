"""Charts are well-formed, hold all they are given, and name their dots."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.reporting.charts import Dot, Line, interval, lines, scatter
from tasks.core.reporting.search_charts import Coordinate, Track, coordinates
from tasks.core.reporting.svg import Axis


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.booleans())
def test_axis_holds_all_values_when_they_are_any(values: list[float], zero: bool) -> None:
    axis = Axis.over(values, 50, 400, zero=zero)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values) and max(values) <= axis.high + slack
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 13
    assert ticks[0][0] == pytest.approx(50) and ticks[-1][0] == pytest.approx(400)
    assert len({label for _, label in ticks}) == len(ticks)
    if zero:
        assert axis.low <= 0 <= axis.high


@pytest.mark.parametrize("numbers", [[1], [0, 1], list(range(1, 11)), [1, 300]])
def test_axis_counts_in_whole_numbers_when_counting(numbers: list[float]) -> None:
    labels = [label for _, label in Axis.counting(numbers, 0, 100).ticks()]
    assert all(label.isdigit() for label in labels)
    assert int(labels[0]) <= numbers[0] and int(labels[-1]) >= numbers[-1]


def test_charts_are_well_formed_and_finite_when_data_are_meagre() -> None:
    dot = Dot(0.1, 90, 90, 90, "a<b>&", "selected")
    charts = [
        coordinates([Coordinate("<lr>", "0", "1")], [Track([0.5, None], "a<b>&", 1)], "m", "a<b>&"),
        coordinates([Coordinate("<lr>", "0", "1")], [Track([0.5, None], "a<b>&", 1)], "six", "trials"),
        scatter([dot], [(0.1, 90)], 89, "x", "y", "one", "one <dot>"),
        lines([Line("a", [(1, 90)], 1)], "x", "y", "two", "one point"),
        lines([Line("a", [(1, 90), (2, float("nan"))], 1)], "x", "y", "three", "a gap"),
        interval(0, 0, 0, 0, "four", "nothing"),
        interval(-0.4, -1.2, 0.3, 1.0, "five", "a gain"),
    ]
    for chart in charts:
        root = ElementTree.fromstring(str(chart))
        assert root.get("role") == "img"
        assert "nan" not in chart and "inf" not in chart
    assert "a&lt;b&gt;&amp;" in charts[0] and "a&lt;b&gt;&amp;" in charts[1]


def crowd(names: int, spread: float) -> list[Dot]:
    """Candidates of which many are as fast and as accurate as others."""
    chance = random.Random(names)
    rows = [(chance.gauss(0.06, spread), chance.gauss(91.5, 0.3), f"press-{i}") for i in range(names - 1)]
    dots = [Dot(abs(x), y, y - 0.3, y + 0.3, name, "within") for x, y, name in rows]
    return [*dots, Dot(dots[0].x, dots[0].y, dots[0].low, dots[0].high, "prune-0.5-int8", "selected")]


@pytest.mark.parametrize(("names", "spread"), [(2, 0.0), (5, 0.0), (6, 0.01), (12, 0.05)])
def test_every_dot_is_named_when_dots_lie_one_on_another(names: int, spread: float) -> None:
    dots = crowd(names, spread)
    root = ElementTree.fromstring(scatter(dots, [], 91, "x", "y", "name", "summary"))
    named = [text.text for text in root.iter("text") if "dot-label" in text.get("class", "")]
    assert sorted(filter(None, named)) == sorted(dot.label for dot in dots)
