"""Small networks that have learned something, in seconds: for tests of what compresses them."""

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from filelock import FileLock

from tasks.core.augmentation.policy import of_images
from tasks.core.config.compression_params import QuantizeParams
from tasks.core.config.params import AugmentParams
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import ImageInput
from tasks.core.models.architectures import build
from tasks.core.models.saved import load_model, save_model
from tasks.core.models.spec import Spec
from tasks.core.quantization.source import TrainableSource
from tasks.core.runtime.export import export
from tasks.core.runtime.graphs import GRAPH, load_graph, network_input, save_graph

ARCHITECTURES = (
    "resnet_small",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "resnet18",
    "timm/mobilenetv3_small_100",
)
SHAPE = (28, 28, 1)
GIVEN = ImageInput(SHAPE, [100 / 255], [1 / (255 * 0.015)])  # zero is 100, scale 0.015


def patterns(count: int, seed: int) -> Split:
    """Images whose class is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, count)
    images_NHWC = rng.integers(0, 120, (count, *SHAPE)).astype(np.uint8)
    for image_HWC, label in zip(images_NHWC, labels_N, strict=True):
        row, column = 14 * (label // 2), 14 * (label % 2)
        image_HWC[row : row + 14, column : column + 14] += 100
    return Split(images_NHWC, labels_N)


def spec_of(arch: str) -> Spec:
    return Spec(arch, 16, 0.0, SHAPE, 4)


def trained_a_little(arch: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(spec_of(arch))
    if arch == "resnet_small":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
        count, batch_size, epochs = 1024, 64, 2
    else:  # deeper ones learn nothing in so few steps of that
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        count, batch_size, epochs = 512, 16, 1
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.3  # after 32 steps its statistics are to be those of the trained network
    train = patterns(count, 0)
    x_NCHW = torch.tensor(network_input(np.asarray(train.raw_N), GIVEN))
    labels_N = torch.tensor(train.labels_N)
    for rows in [*torch.arange(count).split(batch_size)] * epochs:
        loss = torch.nn.functional.cross_entropy(model.train()(x_NCHW[rows]), labels_N[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def accuracy_of(network: torch.nn.Module) -> float:
    """On patterns that it has not seen."""
    val = patterns(400, 1)
    with torch.inference_mode():
        logits_NK = network(torch.tensor(network_input(np.asarray(val.raw_N), GIVEN)))
    return float((logits_NK.argmax(1).numpy() == val.labels_N).mean())


def _folder_of(arch: str) -> Path:
    """`network_of` it on disk, with its graph: made once for all processes of a session, as it takes ten seconds."""
    folder = Path(os.environ["MODELPRESS_TESTS"]) / arch.replace("/", "-")
    with FileLock(f"{folder}.lock"):
        if not (folder / GRAPH).exists():
            folder.mkdir(exist_ok=True)
            network = trained_a_little(arch)
            assert accuracy_of(network) > 0.9, f"{arch} has learned nothing that could be lost"
            save_model(network, spec_of(arch), folder)
            save_graph(export(network, GIVEN), folder)
    return folder


@cache
def network_of(arch: str) -> torch.nn.Module:
    """A network that tells four patterns apart. For reading only."""
    return load_model(_folder_of(arch))[0]


@cache
def source_of(arch: str) -> TrainableSource:
    """`network_of` it, as the schemes take it. For reading only."""
    train, val = patterns(1024, 0), patterns(400, 1)
    dataset = Dataset(list("abcd"), GIVEN, "digest", train, val, val)
    policy = of_images(AugmentParams(flip_horizontal=False, crop=0), GIVEN)
    values = QuantizeParams(schemes=["fp32"], calibration_images=64)
    folder = _folder_of(arch)
    return TrainableSource(values, dataset, load_graph(folder), folder, policy)


def kernels(content: bytes) -> list[str]:
    """The operators that ONNX Runtime runs for a graph once it has optimised it, sorted."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that such a file is for this machine alone
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return sorted(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
