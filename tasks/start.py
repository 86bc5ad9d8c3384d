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
from tasks.core.evaluation.candidates import DENSE_NETWORK, DENSE_WEIGHTS

WEIGHTS, NETWORK, TRIALS = "model.safetensors", "model.json", "trials.csv"
EMBEDDINGS = "embeddings.safetensors"  # of words by their hashes
TEACHER = "teacher"  # a folder, with a network as stage train writes it


def start(params: StartParams, settings: Path, out: Path) -> None:
    """Write start.json, model.safetensors or embeddings.safetensors unless weights are random, teacher/ if there is one, and
    trials.csv if there is an earlier search.

    Args:
        settings: params.yaml, whose section `train` names the network that pretrained weights are for.

    Raises:
        BadInput: there are no such weights, no such teacher or no such trials.
        StageFailed: they could not be obtained.
    """
    train: TrainParams = load_section("train", settings)
    if params.weights == "pretrained":
        _pretrained(train.arch, out / WEIGHTS)
    elif params.weights.startswith("models:/"):
        with tempfile.TemporaryDirectory() as folder:
            _copy(_registered("start.weights", params.weights, DENSE_WEIGHTS, Path(folder)), out / WEIGHTS)
    elif params.weights != "random":
        _from_disk(Path(params.weights), out)
    if params.teacher is not None:
        _teacher(params.teacher, out / TEACHER)
    if params.trials is not None:
        _trials(Path(params.trials), out / TRIALS)
    digests = {name: _digest(out / name) for name in (WEIGHTS, EMBEDDINGS, f"{TEACHER}/{WEIGHTS}", TRIALS)}
    write_json(out / "start.json", {**params.model_dump(), "sha256": digests})
    teacher = f", teacher {params.teacher}" if params.teacher else ""
    print(f"start: weights {params.weights}{teacher}, trials {params.trials or 'none'}")


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


def _from_disk(path: Path, out: Path) -> None:
    """The weights of a network; or of words, where they come with a tokenizer."""
    from tasks.core.models.embeddings import is_embeddings, read_embeddings

    if is_embeddings(path):
        from safetensors.torch import save_file

        save_file(read_embeddings(path), out / EMBEDDINGS)
    else:
        _copy(path / WEIGHTS if path.is_dir() else path, out / WEIGHTS)


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


def _teacher(name: str, out: Path) -> None:
    """Read and written again, as weights are."""
    from safetensors import SafetensorError

    from tasks.core.models.saved import load_model, save_model
    from tasks.core.models.sentence_encoder import SentenceEncoder, is_encoder

    if is_encoder(Path(name)):
        encoder = SentenceEncoder("start.teacher", Path(name))
        out.mkdir()
        encoder.save(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = Path(name)
        if name.startswith("models:/"):
            found = Path(folder)
            for there, here in ((DENSE_WEIGHTS, WEIGHTS), (DENSE_NETWORK, NETWORK)):
                _registered("start.teacher", name, there, found).rename(found / here)
        try:
            model, spec = load_model(found)
        except (OSError, ValueError, LookupError, TypeError, SafetensorError):
            raise BadInput(
                f"start.teacher: {name}: not a folder with {NETWORK} and {WEIGHTS} of stage train, nor one of an encoder of sentences"
            ) from None
        out.mkdir()
        save_model(model, spec, out)


def _pretrained(arch: str, out: Path) -> None:
    """What torchvision or timm publish for a network; both check what they download."""
    from safetensors.torch import save_file

    from tasks.core.models.architectures import published

    try:
        state = published(arch)
    except OSError as error:
        raise StageFailed(f"the weights of {arch} could not be downloaded: {error}") from None
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out)


def _registered(key: str, uri: str, file: str, folder: Path) -> Path:
    """A file of the dense network beside a registered model."""
    from tasks.core.tracking.registered import download

    try:
        download(uri, file, folder)
    except BadInput as error:
        raise BadInput(f"{key}: {error}; MLFLOW_TRACKING_URI says where to look") from None
    return folder / file


if __name__ == "__main__":
    main(start)
