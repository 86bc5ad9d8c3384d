"""What it gives that int8 graphs read an image in squares of pixels (tasks.core.runtime.stem).

    python benchmarks/stem.py

Three networks of untrained weights in int8, as they are and with their first layer on squares: one image on one thread,
the graphs in turn.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from common import write_result

from tasks.core.data.inputs import ImageInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.quantization.static import calibrate, quantize_static, sensitive
from tasks.core.runtime.export import export
from tasks.core.runtime.graphs import take_raw, to_bytes
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.stem import fold_stem

SPECS = {
    "convnet_small of width 32 on 64 pixels, reduced to 32": Spec(
        "convnet_small", 32, 0.0, (64, 64, 3), 10, downscale=2
    ),
    "resnet_small of width 32 on 96 pixels": Spec("resnet_small", 32, 0.0, (96, 96, 3), 10),
    "mobilenet_v3_small on 96 pixels": Spec("mobilenet_v3_small", 16, 0.0, (96, 96, 3), 10),
}
REPEATS = 2000


def main() -> None:
    """Time all of them."""
    rows = []
    for name, spec in SPECS.items():
        torch.manual_seed(0)
        images_NHWC = np.random.default_rng(0).integers(0, 256, (64, *spec.image_shape)).astype(np.uint8)
        channels = spec.image_shape[2]
        given = ImageInput(spec.image_shape, [0.5] * channels, [0.25] * channels)
        plain = export(build(spec).eval(), given)
        sides = {"plain": plain, "squares": fold_stem(plain)}
        with TemporaryDirectory() as folder:
            paths = {side: Path(folder) / f"{side}.onnx" for side in sides}
            for side, graph in sides.items():
                paths[side].write_bytes(_int8(graph, images_NHWC, given))
            timed = latencies(paths, images_NHWC, 1, 1, REPEATS, "plain")
        row = {
            "network": name,
            "plain_ms": timed["plain"].p50_ms,
            "squares_ms": timed["squares"].p50_ms,
            "speedup": timed["squares"].speedup,
            "speedup_ci95": timed["squares"].speedup_ci95,
        }
        rows.append(row)
        print(row, flush=True)
    write_result("stem", {"repeats": REPEATS, "rows": rows}, ("onnxruntime",))


def _int8(graph: onnx.ModelProto, images_NHWC: np.ndarray, given: ImageInput) -> bytes:
    calibrated = calibrate(graph, images_NHWC, given, method="minmax", weight_bits=7, per_channel=True)
    made = quantize_static(calibrated, sensitive(graph))
    return to_bytes(take_raw(made, given))


if __name__ == "__main__":
    main()
