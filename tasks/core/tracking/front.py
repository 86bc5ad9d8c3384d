"""The front of the search as MLflow can show it: a plot of text in the run's description.

MLflow sends an HTML artifact as a download, and shows it in a frame whose links are dead; a description keeps
`pre` and `a`. So each design is a piece of text, placed by speed-up and accuracy, that links to its run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.reporting.search_charts import Design
from tasks.core.reporting.searches import GREATER, design_point
from tasks.core.reporting.svg import Axis

WIDTH, HEIGHT = 60, 20  # characters, lines
LINKS = 60  # MLflow cuts a description at 8,000 characters
NOTE = (
    "The front of the search, each point a link to the run of its trial: untrained accuracy in % upwards, times "
    "{} than the dense model to the right. Designs of the front are the numbers of their trials, with a "
    "star where they became candidates; the others are rings.\n\n"
)


def front_note(trials: Sequence[tuple[Mapping[str, str], str]], objective: str) -> str:
    """Rows of press/trials.csv, each with the address of its run, as Markdown, by what was sought: the `fastest` or the
    `smallest`.

    Of more than LINKS designs, those that became candidates are linked first, then those of the front.
    """
    points = [(row["number"], design_point(row, objective, href)) for row, href in trials]
    points.sort(key=lambda p: (not p[1].candidate, not p[1].front))
    x = Axis.over([p.x for _, p in points], 0, WIDTH - 1)
    y = Axis.over([p.y for _, p in points], HEIGHT - 1, 0)
    cells: dict[tuple[int, int], str] = {}
    taken: set[tuple[int, int]] = set()
    for i, (number, point) in enumerate(points):
        text = _text(number, point)
        line, column = _free(round(y.at(point.y)), round(x.at(point.x)), len(text), taken)
        place = [(line, column + k) for k in range(len(text))]
        taken |= {(line, column - 1), *place, (line, column + len(text))}
        cells |= dict.fromkeys(place, "")
        cells[place[0]] = f'<a href="{point.href}">{text}</a>' if i < LINKS else text
    return f"{NOTE.format(GREATER[objective])}<pre>\n{_drawn(cells, x, y)}\n</pre>\n"


def _text(number: str, point: Design) -> str:
    if not point.front:
        return "○"
    return f"{number}*" if point.candidate else number


def _free(line: int, column: int, length: int, taken: set[tuple[int, int]]) -> tuple[int, int]:
    """The place for `length` characters nearest to where they belong: pieces of text do not touch."""
    places = ((i, j) for i in range(HEIGHT) for j in range(WIDTH - length + 1))
    free = (p for p in places if not any((p[0], p[1] + k) in taken for k in range(length)))
    nearest = min(free, key=lambda p: (2 * abs(p[0] - line) + abs(p[1] - column), p), default=None)
    return nearest or (line, min(column, WIDTH - length))


def _drawn(cells: Mapping[tuple[int, int], str], x: Axis, y: Axis) -> str:
    """The cells within their axes; one that the text before it covers is empty."""
    levels = {round(at): text for at, text in y.ticks()}
    margin = max(map(len, levels.values()))
    lines = [
        f"{levels.get(i, ''):>{margin}} │" + "".join(cells.get((i, j), " ") for j in range(WIDTH)).rstrip()
        for i in range(HEIGHT)
    ]
    below = ""
    for at, text in x.ticks():
        below = below.ljust(round(at)) + text
    return "\n".join([*lines, f"{'':>{margin}} └{'─' * WIDTH}", f"{'':>{margin}}  {below}"])
