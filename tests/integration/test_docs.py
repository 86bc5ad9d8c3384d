"""What README and tutorial tell a reader to type works, as it stands there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.project import make_project, run
from tests.integration.toy import ROOT, environment

# What stands for something else in the text, and what takes a quarter of an hour and is run by benchmarks/pipeline.py.
SUBSTITUTES = {
    "path/to/images": "my-images --name digits",
    "some.png other.jpg": "my-images/digit\\ 3/13.png my-images/digit\\ 5/15.png",
    ". .venv/bin/activate\n": "",
}

RUN_S = 2400  # for a quick run, which takes four minutes alone, and here shares a core with another test


def blocks(page: Path) -> list[str]:
    """The shell blocks of a page."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def shell(folder: Path, script: str) -> str:
    return run(folder, "bash", "-euo", "pipefail", "-c", script, limit_s=RUN_S, **environment())


@pytest.fixture(scope="module")
def after_tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A checkout with the committed params.yaml in which the tutorial was followed, and what its blocks printed."""
    folder = make_project(tmp_path_factory.mktemp("docs") / "modelpress", Path("data/raw/fashion-mnist"))
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    yield folder, [shell(folder, block) for block in blocks(ROOT / "docs/tutorial.md")]


@pytest.mark.timeout(RUN_S + 300)
def test_tutorial_ends_with_a_model_that_predicts_when_its_blocks_are_run(
    after_tutorial: tuple[Path, list[str]],
) -> None:
    folder, printed = after_tutorial
    assert len(printed) == 7
    figures = yaml.safe_load((folder / "metrics.json").read_text())
    assert figures["val_accuracy"] > 0.9, "the tutorial's model knows its digits"
    threes = [row for row in printed[5].splitlines() if "digit 3/" in row]
    right = [row for row in threes if re.search(r"\.png +digit 3 ", row)]
    assert len(threes) == len(list((folder / "my-images/digit 3").glob("*3.png"))) > 10
    assert len(right) > 0.8 * len(threes)
    assert "selected:" in printed[6]
    assert re.search(r"^train\.arch +auto: \w+_small ", printed[3], re.M)


@pytest.mark.timeout(RUN_S + 300)
def test_readme_s_own_images_block_predicts_when_it_is_run(after_tutorial: tuple[Path, list[str]]) -> None:
    folder, _ = after_tutorial
    (block,) = [block for block in blocks(ROOT / "README.md") if "modelpress predict" in block]
    for text, instead in SUBSTITUTES.items():
        assert text in block
        block = block.replace(text, instead)
    printed = shell(folder, block)
    assert "Nothing changed" in printed
    assert "13.png" in printed
    assert "15.png" in printed


def test_readme_s_first_block_names_targets_that_there_are_when_it_is_read(tmp_path: Path) -> None:
    first = blocks(ROOT / "README.md")[0]
    (tmp_path / "REPOSITORY").symlink_to(ROOT)
    said = shell(tmp_path, first.replace("make ", "make --dry-run "))
    assert "modelpress fetch fashion-mnist" in said
    assert "modelpress ui" in said
