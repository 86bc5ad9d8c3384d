"""Train one variant of the configuration for `modelpress ablate`, with one seed, and see which test images it gets right.

A single thread, whatever the machine, so that variants run beside each other and equal seeds give equal networks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.core.ablation.techniques import PRUNED, QUANTIZED, Sections, Variant, merged, plan
from tasks.core.augmentation.augment import Augment, augment_of
from tasks.core.augmentation.policy import resolve_policy
from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json
from tasks.core.config.cli import main
from tasks.core.config.compression_params import PruneParams, QuantizeParams
from tasks.core.config.params import AblateParams, AugmentParams, TrainParams
from tasks.core.config.params_file import load_pipeline, parse, read_yaml
from tasks.core.data.dataset import Dataset, open_dataset, subset
from tasks.core.distributed.world import World, deterministic, keep_memory
from tasks.core.models.saved import load_model, mac_count, rectify, save_model
from tasks.core.models.spec import Spec
from tasks.core.models.transfer import begin
from tasks.core.pruning.cutting import Pruner, loss_gradients
from tasks.core.pruning.finetuning import recover
from tasks.core.quantization.schemes import SCHEMES
from tasks.core.quantization.source import TrainableSource
from tasks.core.runtime.export import export
from tasks.core.runtime.session import predict as predict_onnx
from tasks.core.runtime.session import session
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import epochs, predict
from tasks.core.training.recipes import new_network, recipe_of, spec_of

ALONE = World(0, 1, torch.device("cpu"))


def ablate(
    params: AblateParams,
    settings: Path,
    data: Path,
    weights: Path,
    best: Path,
    network: Path,
    variant: str,
    number: int,
    out: Path,
) -> None:
    """Write correct.npy (bool, one a test image), metrics.json and, of a training, the network.

    Args:
        settings: params.yaml.
        data: the ingested data set.
        weights: the folder of start.
        best: best.yaml of tune.
        network: what the committed variant of the same number wrote, for variants that begin with a network.
        variant: its name in `techniques.plan`.
        number: which of `params.seeds` trainings.

    Raises:
        BadInput: params.yaml or a value in it does not suit the data.
        StageFailed: training has diverged.
    """
    keep_memory()
    torch.set_num_threads(1)
    deterministic()
    committed: Sections = load_pipeline(settings).model_dump()
    tuned = read_yaml(best)
    chosen = next(v for v in plan(committed, tuned, params.techniques).variants if v.name == variant)
    sections = merged(committed, {"train": tuned if chosen.tuned else {}})
    sections = merged(sections, chosen.changes)
    dataset = open_dataset(data, sections["train"]["sampling"])
    part = replace(dataset, train=subset(dataset.train, params.train_fraction, 0))
    seed = committed["train"]["seed"] + number
    if chosen.network:
        about = _compressed(chosen, sections, params.epochs, part, network, seed)
    else:
        about = _trained(chosen, sections, params.epochs, part, weights, seed, out)
    correct_N = about.pop("labels_N") == np.asarray(dataset.test.labels_N)
    np.save(out / "correct.npy", correct_N)
    write_json(
        out / "metrics.json",
        {"variant": variant, "number": number, "accuracy": float(correct_N.mean()), **about},
    )
    print(f"ablate: {variant}, seed {seed}: {correct_N.mean():.2%}", flush=True)


def _trained(
    variant: Variant, sections: Sections, length: int, dataset: Dataset, weights: Path, seed: int, out: Path
) -> dict[str, Any]:
    """Labels of the test images, and how large the network is."""
    values = {**sections["train"], "epochs": length, "seed": seed, "early_stopping": 0}
    params = parse(TrainParams, values, f"{variant.name}: train")
    augment = _augmentation(sections, dataset, params.augment_strength)
    torch.manual_seed(seed)
    spec, model = spec_of(params, dataset), new_network(params, dataset, augment.brings)
    if variant.started:
        begin(model, weights, params.vocabulary)
    diverged = False
    try:
        list(
            epochs(model, recipe_of(params), dataset.train, dataset.val, augment, len(dataset.classes), ALONE)
        )
    except StageFailed as error:  # a finding, not a failure: without batch norm, say, a rate is too high
        print(f"ablate: {variant.name}: {error}", flush=True)
        diverged = True
    save_model(model, spec, out)
    return _about(model, spec, dataset) | {"diverged": diverged}


def _compressed(
    variant: Variant, sections: Sections, length: int, dataset: Dataset, network: Path, seed: int
) -> dict[str, Any]:
    """As `_trained`, of a network that was pruned and recovered, or quantized."""
    dense, spec = load_model(network)
    augment = _augmentation(sections, dataset, sections["train"]["augment_strength"])
    if variant.name == QUANTIZED:
        scheme = next((s for s in sections["quantize"]["schemes"] if s.startswith("int8")), "int8")
        quantize = parse(QuantizeParams, sections["quantize"], "quantize")
        graph = export(dense, dataset.input)
        source = TrainableSource(quantize, dataset, graph, network, _policy(sections, dataset))
        content = source.file(SCHEMES[scheme](source).graph)
        logits_NK = predict_onnx(session(content, 1), dataset.test.raw_N)
        size = {"size_bytes": len(content), "size_bytes_before": len(source.file(source.graph))}
        return {"labels_N": logits_NK.argmax(1), "scheme": scheme, **size}
    distilled = {} if variant.name == PRUNED else {"distill_weight": 0.0}
    params = parse(PruneParams, {**sections["prune"], **distilled, "epochs": length, "steps": 1}, "prune")
    ratio = next((r for r in params.ratios if isinstance(r, float)), 0.5)
    student = copy.deepcopy(dense).train()
    if params.relu:
        rectify(student)
    torch.manual_seed(seed)
    Pruner(
        student,
        dataset.input,
        ratio,
        params.criterion,
        params.scope,
        1,
        params.round_to,
        seed,
        lambda: loss_gradients(student, dataset.train, augment.input),
        dataset.train.tokens_N,
    ).step()
    recalibrate(student, dataset.train, augment.input)
    list(recover(student, dense, params, dataset, augment, ALONE, length=length, seed=seed))
    return _about(student, spec, dataset) | {
        "ratio": ratio,
        "macs_before": mac_count(dense, dataset.input),
    }


def _augmentation(sections: Sections, dataset: Dataset, strength: float) -> Augment:
    return augment_of(_policy(sections, dataset), strength)


def _policy(sections: Sections, dataset: Dataset) -> dict[str, Any]:
    params = parse(AugmentParams, sections["augment"], "augment")
    return resolve_policy(params, dataset)


def _about(model: nn.Module, spec: Spec, dataset: Dataset) -> dict[str, Any]:
    labels_N = predict(model, dataset.test, dataset.input).argmax(1).numpy()
    return {"labels_N": labels_N, "macs": mac_count(model, dataset.input)}


if __name__ == "__main__":
    main(ablate)
