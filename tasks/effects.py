"""The table and the picture of what each technique gave, from the trainings of `modelpress ablate`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tasks.core.ablation.effects import Measured, measure
from tasks.core.ablation.techniques import Kind, plan
from tasks.core.common.files import write_json, write_text
from tasks.core.config.cli import main
from tasks.core.config.params import AblateParams
from tasks.core.config.params_file import load_pipeline, read_yaml
from tasks.core.reporting import charts
from tasks.core.reporting.page import percent, points, render

COLUMNS = ("technique", "kind", "points", "low", "high", "having", "lacking", "verdict", "note")
# What each way of measuring is called, and what its rows are compared with.
KINDS: dict[Kind, tuple[str, str]] = {
    "in context": ("In your configuration", "switched off in params.yaml as it is committed"),
    "alone": ("Alone", "switched on where nothing else is"),
    "on the network": ("On the finished network", "applied to the network of the committed configuration"),
}


def effects(params: AblateParams, settings: Path, best: Path, runs: Path, out: Path) -> None:
    """Write effects.csv, effects.html and metrics.json.

    Args:
        settings: params.yaml.
        best: best.yaml of tune.
        runs: what stage ablate has written, a folder a variant and number.
    """
    committed = load_pipeline(settings).model_dump()
    planned = plan(committed, read_yaml(best), params.techniques)
    found = measure(planned, runs, params.seeds, params.bootstrap)
    _write_table(found, out / "effects.csv")
    sections = [
        {
            "title": title,
            "what": what,
            "rows": (rows := sorted((m for m in found if m.kind == kind), key=lambda m: -m.points)),
            "chart": charts.forest(
                [(m.technique, m.points, m.low, m.high) for m in rows],
                "Points of test accuracy",
                kind.replace(" ", "-"),
                f"{title}: the effect of each technique, with its 95 % interval",
            ),
        }
        for kind, (title, what) in KINDS.items()
        if any(m.kind == kind for m in found)
    ]
    page = render(
        "effects.html.j2",
        title=committed["report"]["title"],
        params=params,
        sections=sections,
        trainings=len(planned.variants) * params.seeds,
        left_out=planned.left_out,
    )
    write_text(out / "effects.html", page)
    verdicts = [m.verdict for m in found]
    counts = {word.replace(" ", "_"): verdicts.count(word) for word in ("helps", "costs", "not to be told")}
    write_json(out / "metrics.json", {"techniques": len({m.technique for m in found}), **counts})
    for measured in found:
        interval = f"{points(measured.low)} to {points(measured.high)}"
        print(
            f"effects: {measured.technique} ({measured.kind}): {points(measured.points)} points ({interval}), "
            f"{percent(measured.having)} with it",
            flush=True,
        )


def _write_table(found: Sequence[Measured], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for measured in found:
            writer.writerow(
                [round(v, 4) if isinstance(v, float) else v for v in (getattr(measured, c) for c in COLUMNS)]
            )


if __name__ == "__main__":
    main(effects, section="ablate")
