"""What evaluate measured of every candidate, as one row each, and the rules that compare the rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json
from tasks.core.config.params_file import Pipeline, load_pipeline
from tasks.core.evaluation.bar import Loss

DENSE = "dense-fp32"  # the reference: neither pruned nor quantized
DENSE_WEIGHTS = (
    "dense.safetensors"  # of the dense network beside what was selected; training can start from them
)
DENSE_NETWORK = "dense.json"  # what network they are of; others can learn from it
PRESSED = "press-"  # candidates of the stage press are called so, and numbered
TIMED = {  # the settings of latency.json, in words
    "b1_t1": "1 example, 1 thread",
    "b1_tall": "1 example, all threads",
    "b64_t1": "64 examples, 1 thread",
    "b64_tall": "64 examples, all threads",
}


@dataclass(frozen=True)
class Candidate:
    """One model. Accuracy is a fraction; the drop, against dense-fp32, is in percentage points and
    positive when worse, with its 95 % interval and the p-value of McNemar's exact test, of the test examples unless it
    is called val; latencies are p50
    in ms on one thread, and speed-ups, against dense-fp32, medians of what was paired (see latency). The margin
    over the best baseline is in points too, and negative where the baseline is better."""

    name: str
    accuracy: float
    drop_points: float
    drop_low: float
    drop_high: float
    mcnemar_p: float
    val_accuracy: float
    val_drop_points: float
    val_drop_low: float
    val_drop_high: float
    val_drop_error: float
    margin_points: float
    margin_low: float
    margin_high: float
    size_bytes: int
    size_compressed_bytes: int
    sparsity: float
    parameters: int
    macs: int
    nodes_int8: int
    nodes_fp32: int
    p50_ms_b1_t1: float
    p50_ms_b64_t1: float
    speedup_b1: float
    speedup_b1_low: float
    speedup_b1_high: float
    speedup_b64: float

    @property
    def val_loss(self) -> Loss:
        """On the validation images, by which the choice is made."""
        return Loss(self.val_drop_points, self.val_drop_low, self.val_drop_high, self.val_drop_error)


def read_candidates(evaluation: Path) -> dict[str, Candidate]:
    """The candidates in data/evaluate, by name.

    Raises:
        BadInput: a file is missing.
        StageFailed: a figure is missing or no finite number, or dense-fp32 was not evaluated.
    """
    accuracy = read_result(evaluation / "accuracy.json")
    latency = read_result(evaluation / "latency.json")["candidates"]
    if DENSE not in accuracy:
        raise StageFailed(
            f"{evaluation / 'accuracy.json'}: {DENSE}, the reference, is missing: evaluate it too"
        )
    return {name: _candidate(name, accuracy[name], latency, evaluation) for name in sorted(accuracy)}


def _candidate(name: str, measured: dict[str, Any], latency: dict[str, Any], evaluation: Path) -> Candidate:
    try:
        low, high = measured["drop_points_ci95"]
        val_low, val_high = measured["val_drop_points_ci95"]
        margin_low, margin_high = measured["margin_points_ci95"]
        one, many = latency[name]["b1_t1"], latency[name]["b64_t1"]
        speedup_low, speedup_high = one["speedup_ci95"]
        candidate = Candidate(
            name=name,
            accuracy=measured["accuracy"],
            drop_points=measured["drop_points"],
            drop_low=low,
            drop_high=high,
            mcnemar_p=measured["mcnemar_p"],
            val_accuracy=measured["val_accuracy"],
            val_drop_points=measured["val_drop_points"],
            val_drop_low=val_low,
            val_drop_high=val_high,
            val_drop_error=measured["val_drop_error"],
            margin_points=measured["margin_points"],
            margin_low=margin_low,
            margin_high=margin_high,
            size_bytes=measured["size_bytes"],
            size_compressed_bytes=measured["size_compressed_bytes"],
            sparsity=measured["sparsity"],
            parameters=measured["parameters"],
            macs=measured["macs"],
            nodes_int8=measured["nodes_int8"],
            nodes_fp32=measured["nodes_fp32"],
            p50_ms_b1_t1=one["p50_ms"],
            p50_ms_b64_t1=many["p50_ms"],
            speedup_b1=one["speedup"],
            speedup_b1_low=speedup_low,
            speedup_b1_high=speedup_high,
            speedup_b64=many["speedup"],
        )
    except KeyError as error:
        raise StageFailed(f"{evaluation}: {name}: no {error.args[0]}: run evaluate again") from None
    for field, value in vars(candidate).items():
        if field != "name" and not (isinstance(value, int | float) and math.isfinite(value)):
            raise StageFailed(
                f"{evaluation}: {name}: {field} is {value}, not a finite number: nothing to compare"
            )
    for field in ("p50_ms_b1_t1", "speedup_b1", "size_bytes"):
        if getattr(candidate, field) <= 0:
            raise StageFailed(
                f"{evaluation}: {name}: {field} must be above 0 (is {getattr(candidate, field)})"
            )
    return candidate


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other one beats in latency and accuracy both, from the fastest to the slowest."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.p50_ms_b1_t1, -c.accuracy, c.name)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return front


def float_nodes(nodes: Iterable[dict[str, str]]) -> dict[tuple[str, str], list[str]]:
    """The names of the nodes that compute in fp32, by reason and operator, each in the graph's order."""
    names: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        if node["precision"] == "fp32":
            names.setdefault((node["reason"], node["op"]), []).append(node["name"])
    return names


def read_result(path: Path) -> Any:
    """The JSON that another stage wrote. Raises BadInput when it is not there, or not whole."""
    try:
        return read_json(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; run the stage {path.parent.name} first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from None


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; none when the file is absent or empty."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text: str | None) -> float:
    """A number in a CSV cell; NaN when the cell is empty or absent."""
    return float(text) if text else math.nan


def sortable(value: float) -> float:
    """The value; below every other one where it is no finite number."""
    return value if math.isfinite(value) else -math.inf


def table_text(rows: list[dict[str, Any]]) -> str:
    """`rows` (at least one, all with the same keys) as CSV with Unix line ends."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def candidate_folders(quantize: Path, press: Path, settings: Path) -> dict[str, Path]:
    """The folder of every candidate that params.yaml asks for, by name; the reference comes first.

    A folder that is no longer asked for (a ratio that was removed, say) is left out, and named.

    Args:
        quantize: folder with a folder a candidate of the stage quantize.
        press: folder of the stage press, whose candidates are press-1, press-2, …
        settings: params.yaml.

    Raises:
        StageFailed: a candidate's model is missing.
    """
    names = [*quantized(load_pipeline(settings)), *pressed(press)]
    folders = {name: candidate_folder(name, quantize, press) for name in names}
    for folder in folders.values():
        if not (folder / "model.onnx").is_file():
            stage = "press" if folder.parent == press else "quantize"
            raise StageFailed(f"{folder / 'model.onnx'}: no such file: run {stage} again")
    left_out = sorted({folder.name for folder in quantize.iterdir()} - set(names))
    if left_out:
        print(f"left out, since params.yaml no longer asks for them: {', '.join(left_out)}", flush=True)
    return folders


def quantized(asked: Pipeline) -> list[str]:
    """The names of the candidates that the stage quantize makes; the reference comes first."""
    origins = ["dense", *(f"prune-{ratio}" for ratio in asked.prune.ratios)]
    names = [f"{origin}-{scheme}" for origin in origins for scheme in asked.quantize.schemes]
    return sorted(names, key=lambda name: name != DENSE)


def pressed(press: Path) -> list[str]:
    """The names of the candidates in the folder of the stage press."""
    return list(read_result(press / "metrics.json")["candidates"])


def candidate_folder(name: str, quantize: Path, press: Path) -> Path:
    """Where the stage that made a candidate has put it."""
    return press / name.removeprefix(PRESSED) if name.startswith(PRESSED) else quantize / name
