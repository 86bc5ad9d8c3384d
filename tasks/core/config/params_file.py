"""params.yaml, read and checked: what is wrong is said in one line that names the file and the key."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tasks.core.common.errors import BadInput
from tasks.core.config.compression_params import PressParams, PruneParams, QuantizeParams
from tasks.core.config.params import (
    AblateParams,
    AugmentParams,
    Auto,
    EvaluateParams,
    IngestParams,
    Params,
    RecipeParams,
    RegistryParams,
    ReportParams,
    SelectParams,
    StartParams,
    TrainParams,
)
from tasks.core.config.tune_params import TuneParams

AUTO = "auto"

P = TypeVar("P", bound=Params)


class Pipeline(Params):
    """params.yaml as a whole."""

    ingest: IngestParams
    recipe: RecipeParams = RecipeParams()
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


@dataclass(frozen=True)
class Asked:
    """params.yaml as people write it.

    Attributes:
        values: by section and key, as they stand there, without those that are `auto`.
        pipeline: all values; where `auto` stands, one that nobody uses.
        auto: the keys, as SECTION.KEY, that are `auto`.
    """

    values: dict[str, dict[str, Any]]
    pipeline: Pipeline
    auto: frozenset[str]


def may_be_auto(section: str) -> list[str]:
    """The keys of a section that may be `auto`."""
    return [
        name
        for name, field in _model(section).model_fields.items()
        if any(isinstance(mark, Auto) for mark in field.metadata)
    ]


def _model(section: str) -> type[Params]:
    model = Pipeline.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, Params)
    return model


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
    if detail["input"] == AUTO:
        return f"{key}: cannot be auto"
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
    values = read_yaml(path).get(section) or {}
    if best is not None:
        values = {**values, **read_yaml(best)}
    _settled({section: values}, path)
    return parse(_model(section), values, f"{path}: {section}")


def load_pipeline(path: Path) -> Pipeline:
    """All of a params.yaml in which nothing is `auto`. Raises BadInput."""
    values = read_yaml(path)
    _settled(values, path)
    return parse(Pipeline, values, f"{path}: ")


def load_asked(path: Path) -> Asked:
    """All of params.yaml, whatever is `auto` in it. Raises BadInput."""
    values = read_yaml(path)
    auto = frozenset(_autos(values))
    given = {
        section: {k: v for k, v in keys.items() if f"{section}.{k}" not in auto}
        if isinstance(keys, dict)
        else keys
        for section, keys in values.items()
    }
    instead = deepcopy(given)
    for key in auto:
        section, name = key.split(".")
        default = Pipeline.model_fields[section].default
        if isinstance(default, Params):
            instead[section][name] = getattr(default, name)
    pipeline = parse(Pipeline, instead, f"{path}: ")
    return Asked({section: keys or {} for section, keys in given.items()}, pipeline, auto)


def _autos(values: dict[str, Any]) -> list[str]:
    """The keys that are `auto` and may be."""
    return [
        f"{section}.{name}"
        for section in Pipeline.model_fields
        if isinstance(values.get(section), dict)
        for name in may_be_auto(section)
        if values[section].get(name) == AUTO
    ]


def _settled(values: dict[str, Any], path: Path) -> None:
    """Raises BadInput where a key is `auto` for a stage to settle."""
    if auto := _autos(values):
        raise BadInput(
            f"{path}: {auto[0]}: is auto; what it becomes is in data/recipe/params.yaml, after stage recipe"
        )
