"""The plot of text in the description of the search's run."""

import re
from pathlib import Path

from tasks.core.evaluation.candidates import read_table
from tasks.core.tracking.front import HEIGHT, LINKS, WIDTH, front_note
from tests.builders import build

MLFLOW_LIMIT = 8_000  # characters of a tag


def note_of(root: Path, trials: int = 20) -> str:
    build(root)
    rows = read_table(root / "press" / "trials.csv")
    rows = [{**rows[i % len(rows)], "number": str(i)} for i in range(trials)]
    return front_note(
        [(row, f"#/experiments/{'9' * 18}/runs/{row['number']:0>32}") for row in rows], "fastest"
    )


def links(note: str) -> dict[int, str]:
    """The text of each link, by its trial."""
    return {int(run): text for run, text in re.findall(r'runs/(\d{32})">([^<]*)</a>', note)}


def drawn(note: str) -> list[str]:
    """The lines between the vertical axis and the right edge."""
    text = re.sub(r"<[^>]*>", "", note)
    return [line.partition("│")[2] for line in text.splitlines() if "│" in line]


def test_every_point_links_to_its_trial_when_drawn(tmp_path: Path) -> None:
    found = links(note_of(tmp_path))
    assert set(found) == set(range(20))
    assert {trial: text for trial, text in found.items() if text != "○"} == {
        4: "4",
        9: "9*",
        14: "14*",
        19: "19",
    }


def test_points_lie_where_their_numbers_say_when_drawn(tmp_path: Path) -> None:
    """Trials of the front are each faster and less accurate than the one before: right of it and below."""
    lines = drawn(note_of(tmp_path))
    assert len(lines) == HEIGHT and max(map(len, lines)) <= WIDTH
    found = {
        text: (i, m.start())
        for i, line in enumerate(lines)
        for m in re.finditer(r"\d+\*?", line)
        for text in [m[0]]
    }
    places = [found[text] for text in ("4", "9*", "14*", "19")]
    assert places[0] == (4, 12)
    assert places == sorted(places) and [column for _, column in places] == sorted(c for _, c in places)


def test_note_fits_into_mlflow_when_trials_are_many(tmp_path: Path) -> None:
    note = note_of(tmp_path, trials=300)
    found = links(note)
    assert len(note) < MLFLOW_LIMIT
    assert len(found) == LINKS and "○" not in found.values()
    assert len(set(found.values())) == LINKS


def test_size_is_to_the_right_when_the_smallest_was_sought(tmp_path: Path) -> None:
    build(tmp_path)
    rows = [(row, "#") for row in read_table(tmp_path / "press" / "trials.csv")]
    for row, _ in rows:
        row["speedup"] = "1"
    note = front_note(rows, "smallest")
    assert "times smaller than the dense model to the right" in note
    columns = {m[0]: m.start() for line in drawn(note) for m in re.finditer(r"\d+\*?", line)}
    assert [columns[text] for text in ("4", "9*", "14*", "19")] == sorted(columns.values()), (
        "the smaller, the further right"
    )
    assert len(set(columns.values())) == len(columns)
