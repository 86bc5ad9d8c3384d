"""Settle what is `auto` in params.yaml: architecture, augmentations, learning rate, lengths.

What is set by hand stays as it is, and no question is asked about it; where nothing is `auto`, nothing is tried. All
later stages read their parameters from what this one writes.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from tasks.core.common.files import fingerprint, write_json, write_text
from tasks.core.common.kept import kept
from tasks.core.config.cli import main
from tasks.core.config.params import RecipeParams
from tasks.core.config.params_file import load_asked

UNREAD = ("registry", "ablate")  # sections that no stage reads
COLUMNS = (
    "number",
    "state",
    "question",
    "variant",
    "accuracy",
    "loss",
    "gain",
    "error",
    "epochs",
    "images",
    "chosen",
)


def recipe(params: RecipeParams, data: Path, settings: Path, journal: Path, out: Path) -> None:
    """Write params.yaml, in which nothing is `auto`, choices.json, trials.csv, augmentations.json and metrics.json.

    Args:
        data: the ingested data set.
        settings: params.yaml.
        journal: a folder that outlives the run: a trial that was made on the same data is not made again.

    Raises:
        BadInput: a value that was set by hand does not suit the data.
    """
    asked = load_asked(settings)
    sections: dict[str, Any] = asked.values
    choices: list[dict[str, Any]] = []
    tried: list[dict[str, Any]] = []
    augmentations: list[dict[str, Any]] = []
    notes: list[str] = []
    if asked.auto:
        from tasks.core.auto.settle import settle
        from tasks.core.data.dataset import open_dataset

        dataset = open_dataset(data, asked.pipeline.train.sampling)
        with kept(journal, fingerprint("recipe", dataset.digest)) as folder:
            draft = settle(asked, dataset, folder)
        sections, notes = draft.sections, draft.notes
        choices = [asdict(draft.choices[key]) for key in sorted(draft.choices)]
        tried = [asdict(trial) for trial in draft.tried]
        augmentations = [asdict(augmentation) for augmentation in draft.augmentations]
    else:
        print("recipe: nothing is auto: every value of params.yaml stands")
    sections = {name: values for name, values in sections.items() if name not in UNREAD}
    write_text(out / "params.yaml", yaml.safe_dump(sections, sort_keys=False, allow_unicode=True))
    write_json(out / "choices.json", {"budget": params.budget, "choices": choices, "notes": notes})
    write_json(out / "augmentations.json", augmentations)
    with (out / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(tried)
    write_json(out / "metrics.json", {"auto": len(choices), "trials": len(tried)})


if __name__ == "__main__":
    main(recipe)
