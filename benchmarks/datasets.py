"""What `modelpress init` and `modelpress run` give on data sets that nothing was set for.

    python benchmarks/datasets.py [--budget quick|normal|thorough] [--table] [NAME …]

Each runs in a clone of its own, .modelpress/datasets/NAME-BUDGET, as a stranger would type it; one that was interrupted
goes on, and its minutes are then not measured. The results keep a row for every set and budget; with --table
nothing runs, and those of a budget are printed as Markdown. The sets are made by
benchmarks/sets.py and benchmarks/text_sets.py. Accuracies, the loss and its interval are of test images that no choice has seen; the speed-up is
that of stage evaluate: candidates in turn, one image on one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import RESULTS, about
from sets import MAKERS, ROOT, SETS, made
from text_sets import TEXT_MAKERS

from tasks.core.common.files import read_json, write_json
from tasks.core.evaluation.candidates import DENSE

RESULT = RESULTS / "datasets.json"
EVERY = [*MAKERS, *TEXT_MAKERS]


def source_of(name: str) -> Path:
    """The folder or the table of a set, which is made if it is not there."""
    if name in MAKERS:
        return made(name)
    table = SETS / f"{name}.csv"
    if not table.exists():
        TEXT_MAKERS[name](table.with_suffix(".partial"))
        table.with_suffix(".partial").rename(table)
    return table


def checkout(name: str) -> Path:
    """A clone at this commit; what an earlier run there has left stays."""
    folder = ROOT / ".modelpress/datasets" / name
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "fetch", "--quiet", "origin", commit], cwd=folder, check=True)
    subprocess.run(["git", "checkout", "--quiet", "--force", commit], cwd=folder, check=True)
    return folder


def modelpress(folder: Path, *words: str) -> None:
    """The command, with the clone's code."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-m", "flows.cli.main", *words], cwd=folder, env=environment, check=True)


def measure(name: str, budget: str) -> dict[str, Any]:
    """Run the pipeline on a set; the row of the table."""
    source = source_of(name)
    folder = checkout(f"{name}-{budget}")
    fresh = not (folder / "data/ingest").exists()
    modelpress(folder, "init", str(source), "--name", name)
    started = time.monotonic()
    modelpress(folder, "run", "--budget", budget)
    minutes = (time.monotonic() - started) / 60
    data = folder / "data"
    dataset = read_json(data / "ingest/dataset.json")
    selected, accuracy = read_json(data / "select/metrics.json"), read_json(data / "evaluate/accuracy.json")
    return {
        "set": name,
        "budget": budget,
        "images": sum(sum(of_class.values()) for of_class in dataset["counts"].values()),
        "test_images": sum(dataset["counts"]["test"].values()),
        "image_shape": dataset.get("image_shape"),  # none of texts
        "classes": len(dataset["classes"]),
        "baseline": selected["baseline"],
        "accuracy_baseline": selected["accuracy_baseline"],
        "accuracy_dense": selected["accuracy_dense"],
        "margin_points_ci95": accuracy[DENSE]["margin_points_ci95"],
        "ece_dense": accuracy[DENSE]["ece"],
        "selected": selected["selected"],
        "ships": selected["ships"],
        "accuracy": selected["accuracy"],
        "ece": accuracy[selected["selected"]]["ece"],
        "drop_points": selected["drop_points"],
        "drop_points_ci95": selected["drop_points_ci95"],
        "speedup_b1": selected["speedup_b1"],
        "size_ratio": selected["size_ratio"],
        "minutes": round(minutes, 1) if fresh else None,
        "verdict": selected["verdict"],
    }


HEAD = ("set", "examples", "best baseline", "dense", "selected", "lost, 95 %", "faster", "smaller", "minutes")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        low, high = row["drop_points_ci95"]
        lines.append(
            (
                row["set"],
                f"{row['images']:,} {_kind(row['image_shape'])}, {row['classes']} classes",
                f"{row['accuracy_baseline']:.1%}",
                f"{row['accuracy_dense']:.1%}",
                f"{row['accuracy']:.1%}" + ("" if row["ships"] else ", refused"),
                f"{row['drop_points']:.2f} ({low:.2f} to {high:.2f})",
                f"{row['speedup_b1']:.1f}",
                f"{row['size_ratio']:.1f}",
                "" if row["minutes"] is None else f"{row['minutes']:.0f}",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kind(image_shape: list[int] | None) -> str:
    if image_shape is None:
        return "texts"
    height, width, channels = image_shape
    return f"images of {height} x {width}, {'colour' if channels == 3 else 'grey'}"


def main() -> None:
    """Run the sets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*EVERY, []], metavar="NAME", help=", ".join(EVERY))
    parser.add_argument("--budget", choices=["quick", "normal", "thorough"], default="normal")
    parser.add_argument("--table", action="store_true", help="print what was measured")
    args = parser.parse_args()
    if args.table:
        rows = read_json(RESULT)["rows"]
        print(table([r for r in rows if r["budget"] == args.budget and r["set"] in (args.names or EVERY)]))
        return
    for name in args.names or EVERY:
        row = {**measure(name, args.budget), **about(("torch", "onnxruntime"))}
        rows = read_json(RESULT)["rows"] if RESULT.exists() else []
        rows = [r for r in rows if (r["set"], r["budget"]) != (name, args.budget)] + [row]
        rows.sort(key=lambda r: (r["budget"], EVERY.index(r["set"])))
        write_json(RESULT, {"rows": rows})
        print(
            name,
            {key: row[key] for key in ("accuracy_dense", "accuracy", "speedup_b1", "size_ratio", "minutes")},
        )


if __name__ == "__main__":
    main()
