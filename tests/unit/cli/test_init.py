"""The first thing that a stranger types."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.cli.found import look, source_of
from tasks.core.common.errors import BadInput
from tests.integration.toy import modelpress

pytestmark = pytest.mark.slow  # processes


def images(folder: Path, side: int = 12, colour: bool = True, **classes: int) -> Path:
    """So many images of each class, in folders."""
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape = (side, side, 3) if colour else (side, side)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(
                folder / name / f"{side}-{i:02}.png"
            )
    return folder


def params(toy: Path) -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load((toy / "params.yaml").read_text()))


def test_init_says_what_is_there_and_keeps_comments_when_given_a_folder(toy: Path) -> None:
    images(toy / "my images", a=12, b=30)
    done = modelpress(toy / "data", "init", "../my images", check=True)
    assert done.stdout.splitlines()[:3] == [
        "my images:",
        "  42 images in 2 classes: b (30), a (12).",
        "  All: 12 x 12, in colour.",
    ]
    assert "modelpress run" in done.stdout
    text = (toy / "params.yaml").read_text()
    assert "  source: my images " in text
    assert "# and this one\n" in text
    assert "# A comment that must survive." in text
    found = params(toy)
    assert found["train"] == {**found["train"], "epochs": "auto", "lr": "auto"}
    assert found["registry"]["name"] == found["report"]["title"] == "my images"


@pytest.mark.parametrize(("words", "name"), [([], "v1-2 of it-s"), (["--name", "shapes"], "shapes")])
def test_init_names_the_project_after_the_folder_or_as_told(toy: Path, words: list[str], name: str) -> None:
    images(toy / "v1.2 of it's", a=1, b=1)
    modelpress(toy, "init", "v1.2 of it's", *words, check=True)
    assert params(toy)["registry"]["name"] == name


def test_init_sets_table_and_archive_when_labels_or_images_lie_there(toy: Path) -> None:
    images(toy / "pets/images", x=10)
    rows = [
        f"{path.stem},{'cat' if i % 2 else 'dog'}" for i, path in enumerate((toy / "pets/images/x").iterdir())
    ]
    (toy / "pets/breeds.csv").write_text("id,breed\n" + "\n".join(rows) + "\n")
    done = modelpress(toy, "init", "pets/breeds.csv", check=True)
    assert "10 images in 2 classes: cat (5), dog (5)." in done.stdout
    assert params(toy)["ingest"] == {**params(toy)["ingest"], "source": "pets", "labels": "breeds.csv"}

    shutil.make_archive(str(toy / "zoo.v2"), "zip", images(toy.parent / "zoo", ape=4, bear=5))
    done = modelpress(toy, "init", "zoo.v2.zip", check=True)
    assert "9 images in 2 classes: bear (5), ape (4)." in done.stdout
    assert params(toy)["ingest"]["source"] == "zoo.v2.zip"
    assert "labels" not in params(toy)["ingest"], "what was set before is of another source"
    assert params(toy)["registry"]["name"] == "zoo"


def nothing(folder: Path) -> str:
    folder.mkdir()
    return folder.name


def one_class(folder: Path) -> str:
    return images(folder, a=3).name


def no_utf8(folder: Path) -> str:
    return images(folder.with_name(os.fsdecode(b"caf\xe9")), a=1, b=1).name


def a_text(folder: Path) -> str:
    folder.with_suffix(".txt").write_text("what?")
    return f"{folder.name}.txt"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "no image in a class folder"),
        (one_class, "only one class, a, has images"),
        (no_utf8, "not UTF-8"),
        (a_text, "neither a folder nor a zip or tar"),
        (lambda folder: str(folder.name), "no such file or folder"),
    ],
)  # fmt: skip
def test_init_exits_2_and_changes_nothing_when_there_is_nothing_to_learn_from(
    toy: Path, make: object, said: str
) -> None:
    before = (toy / "params.yaml").read_bytes()
    done = modelpress(toy, "init", make(toy / "set"))  # type: ignore[operator]
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert (toy / "params.yaml").read_bytes() == before


def test_init_exits_2_and_changes_nothing_when_the_name_cannot_be_a_model_s(toy: Path) -> None:
    before = (toy / "params.yaml").read_bytes()
    done = modelpress(toy, "init", "data", "--name", "a/b")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "registry.name" in done.stderr
    assert (toy / "params.yaml").read_bytes() == before


def test_look_names_what_is_odd_when_there_is_much_of_it(tmp_path: Path) -> None:
    folder = images(tmp_path, Cat=300, cat=12, train=10, tiny=2)
    images(folder, side=20, colour=False, train=5)
    (folder / "empty").mkdir()
    (folder / "tiny/notes.txt").touch()
    (folder / "tiny/broken.png").write_bytes(b"no picture")
    lines = look(folder, None)
    assert lines[0] == "330 images in 4 classes: Cat (300), train (15), cat (12), tiny (3)."
    assert lines[1] == (
        "329 of them looked into: 12 to 20 pixels at the longer side, most often 12 x 12 (98%), 2% grey, the others "
        "in colour."
    )
    assert lines[2:] == [
        "Scaled to 12 x 12 by stage ingest (ingest.size).",
        "Cannot be used: 1 of 330 looked into: no image in a known format.",
        "Left out: 1 not an image by its extension (such as tiny/notes.txt); data/ingest/report.json will list them.",
        "Odd: class folder empty holds no image and is left out.",
        "Odd: fewer than 10 images of tiny: stage ingest will refuse that, unless ingest.min_per_class is lower.",
        "Odd: classes that differ by case or blanks alone: Cat, cat.",
        "Odd: train taken for classes, since other folders than train, val and test stand beside.",
    ]


@pytest.mark.parametrize(("side", "becomes"), [(4, "8 x 8"), (300, "224 x 224")])
def test_look_says_what_images_become_when_they_are_very_small_or_large(
    tmp_path: Path, side: int, becomes: str
) -> None:
    assert f"Scaled to {becomes} by stage ingest (ingest.size)." in look(
        images(tmp_path, side, a=10, b=10), None
    )


def test_look_names_smallest_and_largest_class_when_they_are_far_apart(tmp_path: Path) -> None:
    lines = look(images(tmp_path, a=10, **{f"c{i}": 20 for i in range(6)}, z=250), None)
    assert lines[0] == "380 images in 8 classes: z (250), c0 (20), c1 (20), c2 (20), c3 (20), …, a (10)."
    assert (
        lines[-1]
        == "Odd: 25 times as many images of z as of a: train.sampling: balanced may help the small classes."
    )


def test_source_is_the_folder_when_a_table_in_it_is_named(tmp_path: Path) -> None:
    for name in ("labels.tsv", "metadata.csv", "7.png"):
        (tmp_path / name).touch()
    assert source_of(tmp_path / "labels.tsv") == (tmp_path, "labels.tsv")
    assert source_of(tmp_path / "metadata.csv") == (tmp_path, None), "it is found by itself"
    assert source_of(tmp_path) == (tmp_path, None)
    with pytest.raises(BadInput, match="none: no such file or folder"):
        source_of(tmp_path / "none")


def test_table_holds_texts_when_few_of_its_cells_happen_to_be_names_of_images(tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "art/good.png")
    table = tmp_path / "said.csv"
    rows = [
        f"{'good' if i == 3 else f'some words, {i} of them'};{'art' if i % 2 else 'food'}" for i in range(40)
    ]
    table.write_text("\n".join(["text;label", *rows]))
    assert source_of(table) == (table, None)
