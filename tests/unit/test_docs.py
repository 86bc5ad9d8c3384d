"""The documentation says what the code does: its generated pages are those of the code, its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.parametrize("page", ["params", "data"])
def test_reference_is_that_of_the_code(page: str, generate: dict[str, Any]) -> None:
    written = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert written == generate[page](), "python docs/generate.py"


def test_every_key_is_described(generate: dict[str, Any]) -> None:
    rows = [line for line in generate["params"]().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert all(row.rpartition(" | ")[2].strip(" |") for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_stages_are_those_of_the_graph() -> None:
    graph = re.findall(r"^  (\w+):", (ROOT / "dvc.yaml").read_text(encoding="utf-8"), re.M)
    stages = {name.removesuffix("_dense") for name in graph if (ROOT / "tasks" / f"{name}.py").exists()}
    described = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs/reference/stages.md").read_text(encoding="utf-8"), re.M
    )
    assert set(described) == stages
