"""Find the weights that training starts from, and keep a copy of them, so that a run can be repeated.

They are looked for when the sections `start` and `train` change, and not when a file or an alias does: `dvc repro
--force start` looks anew.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import write_json, write_text
from tasks.core.config.cli import main
from tasks.core.config.params import StartParams, TrainParams
from tasks.core.config.params_file import load_section
from tasks.core.evaluation.candidates import DENSE_WEIGHTS

WEIGHTS, TRIALS = "model.safetensors", "trials.csv"


def start(params: StartParams, settings: Path, out: Path) -> None:
    """Write start.json, model.safetensors unless weights are random, and trials.csv if there is an earlier search.

    Args:
        settings: params.yaml, whose section `train` names the network that pretrained weights are for.

    Raises:
        BadInput: there are no such weights, or no such trials.
        StageFailed: they could not be obtained.
    """
    train: TrainParams = load_section("train", settings)
    if params.weights == "pretrained":
        _pretrained(train.arch, out / WEIGHTS)
    elif params.weights.startswith("models:/"):
        with tempfile.TemporaryDirectory() as folder:
            _copy(_registered(params.weights, Path(folder)), out / WEIGHTS)
    elif params.weights != "random":
        path = Path(params.weights)
        _copy(path / WEIGHTS if path.is_dir() else path, out / WEIGHTS)
    if params.trials is not None:
        _trials(Path(params.trials), out / TRIALS)
    digests = {name: _digest(out / name) for name in (WEIGHTS, TRIALS)}
    write_json(out / "start.json", {**params.model_dump(), "sha256": digests})
    print(f"start: weights {params.weights}, trials {params.trials or 'none'}")


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _trials(path: Path, out: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"start.trials: {path}: cannot be read ({error})") from None
    if not {"state", "value"} <= set(text.partition("\n")[0].split(",")):
        raise BadInput(f"start.trials: {path}: not a trials.csv of tune: no columns state and value")
    write_text(out, text)


def _copy(path: Path, out: Path) -> None:
    """Read and written again, so that what is kept is tensors and nothing else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        save_file(load_file(path), out)
    except FileNotFoundError:
        raise BadInput(f"start.weights: {path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"start.weights: {path}: not a safetensors file ({error})") from None


def _pretrained(arch: str, out: Path) -> None:
    """What torchvision or timm publish for a network; both check what they download."""
    from safetensors.torch import save_file

    from tasks.core.models.architectures import published

    try:
        state = published(arch)
    except OSError as error:
        raise StageFailed(f"the weights of {arch} could not be downloaded: {error}") from None
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out)


def _registered(uri: str, folder: Path) -> Path:
    """The dense network beside a registered model."""
    from tasks.core.tracking.registered import download

    try:
        download(uri, DENSE_WEIGHTS, folder)
    except BadInput as error:
        raise BadInput(f"start.weights: {error}; MLFLOW_TRACKING_URI says where to look") from None
    return folder / DENSE_WEIGHTS


if __name__ == "__main__":
    main(start)
