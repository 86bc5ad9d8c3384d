"""One self-contained page that says what was selected, why, and where every number comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_text
from tasks.core.config.cli import main
from tasks.core.config.params import ReportParams
from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.candidates import DENSE, read_candidates, read_result
from tasks.core.reporting import examples, learning, searches, sections
from tasks.core.reporting.page import render, settings_of


def report(
    params: ReportParams,
    data: Path,
    recipe: Path,
    augment: Path,
    tune: Path,
    train: Path,
    prune: Path,
    press: Path,
    baselines: Path,
    evaluation: Path,
    selection: Path,
    settings: Path,
    out: Path,
) -> None:
    """Write report.html: no script, no font, no picture or style from anywhere else.

    Args:
        params: the heading, and how many mistakes are shown.
        data: data/ingest.
        recipe: data/recipe.
        augment: data/augment.
        tune: data/tune; nothing in it when tuning was off.
        train: data/train.
        prune: data/prune, a folder a ratio.
        press: data/press; nothing in it when the search was off.
        baselines: data/baselines.
        evaluation: data/evaluate.
        selection: data/select.
        settings: params.yaml, shown as the stages used it.
        out: report.html.

    Raises:
        BadInput: a file of another stage is missing.
        StageFailed: the selected model was not evaluated, or a figure is not finite.
    """
    rows = read_candidates(evaluation)
    metrics = read_result(selection / "metrics.json")
    if metrics["selected"] not in rows:
        raise StageFailed(f"{selection}: {metrics['selected']} is not in {evaluation}: run select again")
    dataset = open_dataset(data)
    accuracy = read_result(evaluation / "accuracy.json")
    detail = accuracy[metrics["selected"]]
    used, tuned = settings_of(settings, tune)
    page = render(
        "report.html.j2",
        title=params.title,
        answer=sections.answer(rows, metrics),
        candidates=sections.candidates(rows, metrics),
        baselines=sections.baselines(read_result(baselines / "metrics.json"), rows[DENSE]),
        worth_knowing=sections.worth_knowing(rows, accuracy, prune, used["prune"]["ratios"]),
        speed=sections.speed(rows, read_result(evaluation / "latency.json")),
        nodes=sections.nodes(rows, detail),
        learning=learning.learning(train, prune, press, used["prune"]),
        recipe=searches.recipe(recipe),
        tuning=searches.tuning(tune),
        press=searches.press(press),
        errors=sections.errors(detail, dataset.classes),
        mistakes=examples.mistakes(evaluation, metrics["selected"], dataset, params.mistakes),
        words=examples.words(selection),
        augmentation=examples.augmentation(augment),
        data=sections.data(read_result(data / "report.json"), dataset),
        provenance={
            "settings": sections.flat_settings(used),
            "tuned": [f"train.{key}" for key in tuned],
            "digest": dataset.digest,
            "sha256": hashlib.sha256((selection / "model.onnx").read_bytes()).hexdigest(),
            "threads": read_result(train / "metrics.json")["threads"],
        },
        dense=DENSE,
    )
    write_text(out / "report.html", page)
    print("report: report.html is written", flush=True)


if __name__ == "__main__":
    main(report)
