"""params.yaml, read and checked: what is wrong is said in one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tasks.core.common.errors import BadInput
from tasks.core.config.compression_params import PressParams, PruneParams, QuantizeParams
from tasks.core.config.params import (
    AblateParams,
    AugmentParams,
    EvaluateParams,
    IngestParams,
    Params,
    RegistryParams,
    ReportParams,
    SelectParams,
    StartParams,
    TrainParams,
)
from tasks.core.config.tune_params import TuneParams

P = TypeVar("P", bound=Params)


class Pipeline(Params):
    """params.yaml as a whole."""

    ingest: IngestParams
    augment: AugmentParams = AugmentParams()
    start: StartParams = StartParams()
    tune: TuneParams = TuneParams(trials=0)
    train: TrainParams = TrainParams()
    prune: PruneParams
    quantize: QuantizeParams
    press: PressParams = PressParams(trials=0)
    evaluate: EvaluateParams = EvaluateParams()
    select: SelectParams = SelectParams()
    ablate: AblateParams = AblateParams()
    report: ReportParams = ReportParams()
    registry: RegistryParams = RegistryParams()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises BadInput naming the file (and line) if it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path}: must hold a mapping, not a {type(content).__name__}")
    return content


def parse(model: type[P], values: object, where: str) -> P:
    """`values` as a `model`. Raises BadInput with one line a wrong key, after `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadInput("; ".join(_explain(detail, where) for detail in error.errors())) from None


def _explain(detail: Any, where: str) -> str:
    """One of pydantic's complaints, as WHERE.KEY: what is wrong (got what)."""
    key = ".".join([where, *map(str, detail["loc"])]).replace(": .", ": ")
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key"
        case "missing":
            return f"{key}: is missing"
    return f"{key}: {detail['msg'].removeprefix('Value error, ')} (got {_short(detail['input'])})"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def load_section(section: str, path: Path, best: Path | None = None) -> Any:
    """One section of params.yaml, with the values that tuning found laid over it.

    Args:
        section: its name, the stage's.
        path: params.yaml.
        best: best.yaml of the tune stage, keys of `train` only.

    Raises:
        BadInput: a key is unknown, or a value is ill-typed or out of range.
    """
    model = Pipeline.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, Params)
    values = read_yaml(path).get(section) or {}
    if best is not None:
        values = {**values, **read_yaml(best)}
    return parse(model, values, f"{path}: {section}")


def load_pipeline(path: Path) -> Pipeline:
    """All of params.yaml. Raises BadInput."""
    return parse(Pipeline, read_yaml(path), f"{path}: ")
