"""One peer's model of a dense float model, made in a process of its own.

    python benchmarks/peers.py METHOD --model dense.onnx --calibration x.npy --validation x.npy labels.npy --out DIR

dense.onnx computes logits_NK from x_NCHW, normalised float32. What is made of it, DIR/model.onnx or
DIR/model.xml, has the same input. Every peer has all of the same calibration images, and otherwise its own
defaults; further methods of the same peer have settings that suit convolutions on a CPU better: unsigned
activations, weights per channel. The validation images are for those that look after accuracy themselves.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# They all report their use; these are the switches that they have against it, read when they are imported.
QUIET = {"CI": "true", "NNCF_CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
INPUT = "x_NCHW"
BATCH = 32  # calibration images at a time, where more than one can be
MAX_DROP = 0.01  # of accuracy: NNCF's own default, and our bar


@dataclass(frozen=True)
class Given:
    """What every peer starts from: the float model, and images as it takes them."""

    model: Path
    calibration_NCHW: NDArray[np.float32]
    validation_NCHW: NDArray[np.float32]
    labels_N: NDArray[np.int64]

    def batches(self) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The calibration images as a model's inputs."""
        for start in range(0, len(self.calibration_NCHW), BATCH):
            yield {INPUT: self.calibration_NCHW[start : start + BATCH]}


@dataclass(frozen=True)
class Peer:
    """A way to make a model: the package it is of, what it is, and the function."""

    package: str
    about: str
    make: Callable[[Given, Path], None]


def onnxruntime_static(given: Given, out: Path, better: bool = False) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        batches = given.batches()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.batches, None)

    settings = {"activation_type": QuantType.QUInt8, "per_channel": True} if better else {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(given.model, prepared)
        quantize_static(prepared, out / "model.onnx", Reader(), **settings)


def onnxruntime_dynamic(given: Given, out: Path, better: bool = False) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    settings = {"weight_type": QuantType.QUInt8} if better else {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(given.model, prepared)
        quantize_dynamic(prepared, out / "model.onnx", **settings)


def openvino_fp32(given: Given, out: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(given.model), out / "model.xml")


def nncf_openvino(given: Given, out: Path, preset: str | None = None, accuracy: bool = False) -> None:
    import openvino

    def infer(compiled: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        return lambda x_NCHW: compiled(x_NCHW)[0]

    model = _nncf(given, openvino.convert_model(given.model), lambda x_NCHW: x_NCHW, infer, preset, accuracy)
    openvino.save_model(model, out / "model.xml")


def nncf_onnx(given: Given, out: Path, preset: str | None = None, accuracy: bool = False) -> None:
    import onnx
    import onnxruntime

    def infer(model: onnx.ModelProto) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return lambda x_NCHW: session.run(None, {INPUT: x_NCHW})[0]

    model = _nncf(given, onnx.load(given.model), lambda x_NCHW: {INPUT: x_NCHW}, infer, preset, accuracy)
    onnx.save(model, out / "model.onnx")


def _nncf(
    given: Given,
    model: Any,
    inputs: Callable[[NDArray[np.float32]], Any],
    infer: Callable[[Any], Callable[[NDArray[np.float32]], NDArray[np.float32]]],
    preset: str | None,
    accuracy: bool,
) -> Any:
    import nncf

    def of_pair(pair: tuple[NDArray[np.float32], int]) -> Any:
        return inputs(pair[0][None])

    def validate(candidate: Any, pairs: Iterable[tuple[NDArray[np.float32], int]]) -> float:
        run = infer(candidate)
        return float(np.mean([run(x_CHW[None]).argmax() == label for x_CHW, label in pairs]))

    calibration = nncf.Dataset([(x_CHW, 0) for x_CHW in given.calibration_NCHW], of_pair)
    count = len(given.calibration_NCHW)
    if accuracy:
        validation = nncf.Dataset(list(zip(given.validation_NCHW, given.labels_N, strict=True)), of_pair)
        return nncf.quantize_with_accuracy_control(
            model, calibration, validation, validate, max_drop=MAX_DROP, subset_size=count
        )
    chosen = nncf.QuantizationPreset(preset) if preset else None
    return nncf.quantize(model, calibration, preset=chosen, subset_size=count)


def neural_compressor(given: Given, out: Path, better: bool = False) -> None:
    import onnx
    from onnx_neural_compressor.data_reader import CalibrationDataReader
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.batches, None)

        def rewind(self) -> None:
            self.batches = given.batches()

    settings = {"quant_format": QuantFormat.QDQ, "per_channel": True} if better else {}
    count = len(given.calibration_NCHW)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.onnx"
        quantize(
            str(given.model),
            str(made),
            config.StaticQuantConfig(
                calibration_data_reader=Reader(), calibration_sampling_size=count, **settings
            ),
        )
        onnx.save(onnx.load(made), out / "model.onnx")  # one file: it puts the weights into another


def olive(given: Given, out: Path, kind: str, better: bool = False) -> None:
    from olive.data.config import DataComponentConfig, DataConfig
    from olive.data.registry import Registry
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.quantization import OnnxDynamicQuantization, OnnxStaticQuantization

    @Registry.register_dataset("given")
    def images(**_: Any) -> list[tuple[dict[str, NDArray[np.float32]], int]]:
        return [({INPUT: x_CHW}, 0) for x_CHW in given.calibration_NCHW]

    settings: dict[str, Any] = {"activation_type": "uint8", "per_channel": True} if better else {}
    if kind == "static":
        settings["data_config"] = DataConfig(
            name="calibration",
            type="DataContainer",
            load_dataset_config=DataComponentConfig(type="given"),
            pre_process_data_config=DataComponentConfig(type="skip_pre_process"),
            post_process_data_config=DataComponentConfig(type="skip_post_process"),
            dataloader_config=DataComponentConfig(type="default_dataloader", params={"batch_size": BATCH}),
        )
    kinds = {"static": OnnxStaticQuantization, "dynamic": OnnxDynamicQuantization}
    work = create_pass_from_dict(kinds[kind], settings, disable_search=True)
    work.run(ONNXModelHandler(str(given.model)), str(out / "model.onnx"))


ORT, NNCF, INC, OLIVE = "onnxruntime", "nncf", "onnx-neural-compressor", "olive-ai"
PEERS = {
    "openvino-fp32": Peer("openvino", "not quantized, run in OpenVINO", openvino_fp32),
    "ort-static": Peer(ORT, "quantize_static", onnxruntime_static),
    "ort-static-u8": Peer(
        ORT, "quantize_static, unsigned activations, per channel", partial(onnxruntime_static, better=True)
    ),
    "ort-dynamic": Peer(ORT, "quantize_dynamic", onnxruntime_dynamic),
    "ort-dynamic-u8": Peer(
        ORT, "quantize_dynamic, unsigned weights", partial(onnxruntime_dynamic, better=True)
    ),
    "nncf-ort": Peer(NNCF, "quantize, run in ONNX Runtime", nncf_onnx),
    "nncf-ort-mixed": Peer(NNCF, "preset mixed, run in ONNX Runtime", partial(nncf_onnx, preset="mixed")),
    "nncf-ort-accuracy": Peer(
        NNCF, "with accuracy control, run in ONNX Runtime", partial(nncf_onnx, accuracy=True)
    ),
    "nncf-openvino": Peer(NNCF, "quantize, run in OpenVINO", nncf_openvino),
    "nncf-openvino-mixed": Peer(
        NNCF, "preset mixed, run in OpenVINO", partial(nncf_openvino, preset="mixed")
    ),
    "nncf-openvino-accuracy": Peer(
        NNCF, "with accuracy control, run in OpenVINO", partial(nncf_openvino, accuracy=True)
    ),
    "inc-static": Peer(INC, "quantize with StaticQuantConfig", neural_compressor),
    "inc-static-qdq": Peer(
        INC, "StaticQuantConfig, QDQ, per channel", partial(neural_compressor, better=True)
    ),
    "olive-static": Peer(OLIVE, "OnnxStaticQuantization", partial(olive, kind="static")),
    "olive-static-u8": Peer(
        OLIVE,
        "OnnxStaticQuantization, unsigned activations, per channel",
        partial(olive, kind="static", better=True),
    ),
    "olive-dynamic": Peer(OLIVE, "OnnxDynamicQuantization", partial(olive, kind="dynamic")),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=PEERS, metavar="METHOD", help=", ".join(PEERS))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True, metavar="X.npy")
    parser.add_argument("--validation", type=Path, required=True, nargs=2, metavar=("X.npy", "LABELS.npy"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ.update(QUIET)
    given = Given(args.model, np.load(args.calibration), *map(np.load, args.validation))
    args.out.mkdir(parents=True, exist_ok=True)
    PEERS[args.method].make(given, args.out)


if __name__ == "__main__":
    main()
