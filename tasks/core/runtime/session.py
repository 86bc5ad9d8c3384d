"""ONNX Runtime: sessions, predictions, the memory they take and the machine. No torch here.

raw_N: what a file takes, uint8 images [N, H, W, C] or strings [N]; logits_NK: float32.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)

from tasks.core.common.errors import BadInput
from tasks.core.data.parts import parts
from tasks.core.data.texts import Texts

if TYPE_CHECKING:
    from tasks.core.data.bpe import BytePairs

Raw = NDArray[Any] | Texts  # what a file takes: images, or texts
REFUSALS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException)
# Metadata of a file that takes tokens: what makes them, in JSON of the library tokenizers, and how many it takes of a text.
TOKENIZER, LONGEST = "tokenizer", "longest"
SOME_TEXT = "a text of some words, as long as many are " * 3
ISA_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
VNNI = {"avx512_vnni", "avx_vnni", "asimddp"}  # integer dot products, ARM's among them


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with `threads` threads, of a file or its content.

    Raises:
        BadInput: it is no ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    name = "the graph" if isinstance(model, bytes) else str(model)
    try:
        content = model if isinstance(model, bytes) else model.read_bytes()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise BadInput(f"{name}: {(error.strerror or 'cannot be read').lower()}") from None
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{name}: not a model for ONNX Runtime: {reason}") from None


def predict(run: onnxruntime.InferenceSession, raw_N: Raw) -> NDArray[np.float32]:
    """logits_NK of all examples, see `parts`."""
    sizes_N = None
    if isinstance(raw_N, Texts):
        sizes_N = raw_N.lengths_N
    elif raw_N.dtype == object:
        sizes_N = np.array([len(text) for text in raw_N])
    rows = parts(len(raw_N), sizes_N)
    logits = [run.run(None, feed(run, raw_N[rows_n]))[0] for rows_n in rows]
    return np.concatenate(logits)[np.argsort(np.concatenate(rows))]


def feed(run: onnxruntime.InferenceSession, raw_N: Raw) -> dict[str, NDArray[Any]]:
    """What `run` takes these examples by. Raises BadInput where it takes tokens, and does not say of what tokenizer."""
    given = run.get_inputs()[0]
    if takes_tokens(run):
        return {given.name: _encoder(run).padded(np.asarray(raw_N).tolist())}
    return {given.name: np.ascontiguousarray(raw_N)}


def call(run: onnxruntime.InferenceSession, raw_N: Raw) -> Callable[[], object]:
    """What answers for these examples as often as it is called, from raw texts where they are texts."""
    if takes_tokens(run):
        texts_N = np.asarray(raw_N)
        return lambda: run.run(None, feed(run, texts_N))
    return partial(run.run, None, feed(run, raw_N))


def takes_texts(run: onnxruntime.InferenceSession) -> bool:
    """Whether it is texts that `predict` and `feed` are to be given."""
    return takes_tokens(run) or run.get_inputs()[0].type == "tensor(string)"


def takes_tokens(run: onnxruntime.InferenceSession) -> bool:
    """Whether `feed` makes tokens of texts for it, as it cannot do so itself."""
    return bool(run.get_inputs()[0].type == "tensor(int64)")


def _encoder(run: onnxruntime.InferenceSession) -> BytePairs:
    """What makes the tokens that `run` takes."""
    if run not in _ENCODERS:
        from tasks.core.data.bpe import BytePairs  # with a library that others do not need

        about = run.get_modelmeta().custom_metadata_map
        try:
            _ENCODERS[run] = BytePairs(about[TOKENIZER], int(about[LONGEST]))
        except (KeyError, ValueError):
            raise BadInput("takes tokens, and carries no tokenizer: not a model of stage select") from None
    return _ENCODERS[run]


_ENCODERS: WeakKeyDictionary[onnxruntime.InferenceSession, BytePairs] = WeakKeyDictionary()


def peak_memory_mb(model: Path, batch: int) -> float:
    """Peak resident memory, in MB, of a fresh process that loads `model` and runs it once on `batch`
    images: what serving it takes at least, Python and ONNX Runtime included."""
    command = [sys.executable, "-m", "tasks.core.runtime.session", str(model), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _print_peak_memory(model: Path, batch: int) -> None:
    run = session(model, 1)
    given = run.get_inputs()[0]
    if takes_texts(run):
        raw_N: NDArray[Any] = np.full(batch, SOME_TEXT, object)
    else:
        raw_N = np.zeros((batch, *given.shape[1:]), np.uint8)
    run.run(None, feed(run, raw_N))
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(round(int(peak_kb) / 1024, 1))


def fingerprint() -> dict[str, Any]:
    """The machine that latencies were measured on, without its name.

    `vnni` is whether it has integer dot products, `u8s8_saturates` whether 8-bit sums overflow on it.
    """
    from tasks.core.runtime.saturation import u8s8_saturates  # brings onnx, whose memory is no model's

    flags: set[str] = set()
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
            elif key.strip() == "model name":
                model = value.strip()
    return {
        "cpu_model": model,
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "vnni": not VNNI.isdisjoint(flags),
        "u8s8_saturates": u8s8_saturates(),
        "threads": len(os.sched_getaffinity(0)),
        "onnxruntime": onnxruntime.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


if __name__ == "__main__":
    _print_peak_memory(Path(sys.argv[1]), int(sys.argv[2]))
