"""`-S key=value`: the overrides of `dvc exp run -S`, by DVC's own functions, so that the files end up the
same to the byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tasks.core.common.errors import BadInput
from tasks.core.common.files import write_text
from tasks.core.config.params_file import AUTO, Asked, Pipeline, load_asked, may_be_auto, read_yaml

PARAMS = "params.yaml"


def apply(root: Path, given: Sequence[str]) -> tuple[Asked, dict[str, str]]:
    """What `given` makes of the parameters, and the files that it changes. Nothing is written.

    Args:
        root: the checkout.
        given: `key=value`, `~key` to remove one, or `file:key=value` for another file than params.yaml, where
            a new key is `+key=value`.

    Returns:
        The parameters as they will be; name (relative to `root`) to new content of each file.

    Raises:
        BadInput: an override is malformed or names no key, or params.yaml would not be valid with it.
    """
    asked = load_asked(Path(PARAMS))
    if not given:
        return asked, {}
    from dvc.exceptions import DvcException
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException

    changed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in to_path_overrides(given).items():
            copy = Path(folder) / Path(name).name
            if name == PARAMS:  # a key that may be there is accepted whether it is there or not
                overrides = [text if text.startswith("~") else f"++{text.lstrip('+')}" for text in overrides]
            try:
                shutil.copyfile(root / name, copy)
            except OSError as error:
                raise BadInput(f"-S {name}:{overrides[0]}: {name}: {error.strerror}") from None
            try:
                if any(override.is_sweep_override() for override in to_hydra_overrides(overrides)):
                    raise BadInput(
                        f"-S {' '.join(given)}: one value a key: use dvc exp run --queue for several"
                    )
                apply_overrides(copy, overrides)
            except (DvcException, HydraException) as error:
                raise BadInput(f"-S {' '.join(given)}: {_reason(error)}") from None
            if name == PARAMS:
                asked = _validated(copy)
            changed[name] = copy.read_text(encoding="utf-8")
    return asked, changed


def _reason(error: Exception) -> str:
    """Hydra's own words, which DVC puts into the cause, without the grammar that it adds."""
    return " ".join(str(error.__cause__ or error).splitlines()[:2])


def _validated(copy: Path) -> Asked:
    try:
        return load_asked(copy)
    except BadInput as error:
        raise BadInput(str(error).replace(str(copy), PARAMS)) from None


def with_project(root: Path, source: str, labels: str | None, name: str) -> str:
    """params.yaml with `ingest.source` set to `source`, `ingest.labels` to `labels`, `registry.name` and `report.title`
    to `name`, and `auto` for every key that can follow the data; comments and all else are kept.

    Raises:
        BadInput: params.yaml is not valid.
    """
    from dvc.utils.serialize import modify_yaml

    auto = {section: dict.fromkeys(may_be_auto(section), AUTO) for section in Pipeline.model_fields}
    named = {"ingest": {"source": source}, "registry": {"name": name}, "report": {"title": name}}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS
        read_yaml(root / PARAMS)  # says clearly what is wrong with it
        shutil.copyfile(root / PARAMS, copy)
        with modify_yaml(copy) as content:
            for wanted in (auto, named):
                for section, values in wanted.items():
                    if values:
                        content[section] = content.get(section) or {}
                        content[section].update(values)
            if labels is None:
                content["ingest"].pop("labels", None)
            else:
                content["ingest"]["labels"] = labels
            content.setdefault("recipe", {}).setdefault("budget", "normal")
        _validated(copy)
        return copy.read_text(encoding="utf-8")


def write(root: Path, changed: dict[str, str]) -> None:
    """Write what `apply` gave, each file in one step."""
    for name, content in changed.items():
        write_text(root / name, content)
