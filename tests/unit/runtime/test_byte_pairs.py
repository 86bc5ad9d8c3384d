"""Files that take tokens, and carry what makes them of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tasks.core.common.errors import BadInput
from tasks.core.data.texts import Texts
from tasks.core.runtime.graphs import to_bytes
from tasks.core.runtime.latency import latencies
from tasks.core.runtime.session import call, peak_memory_mb, predict, session, takes_texts
from tests.byte_pairs import LONGEST, PAIRS, TEXTS, file, network

pytestmark = pytest.mark.slow  # a graph is exported

ODD = [
    "",
    "   ",
    "\x00",
    "\U0001f600",
    "\u0643\u062a\u0627\u0628",
    "nobody knows these",
    "wind " * 5000,
    *TEXTS[:3],
]


def test_file_computes_what_the_network_does_when_texts_are_odd() -> None:
    run = session(file(), 1)
    assert takes_texts(run)
    with torch.inference_mode():
        wanted = network()(torch.from_numpy(PAIRS.padded(ODD))).numpy()
    assert predict(run, np.array(ODD, object)) == pytest.approx(wanted, abs=1e-5)
    assert predict(run, Texts.of_strings(ODD)) == pytest.approx(wanted, abs=1e-5)
    for text, logits_K in zip(ODD, wanted, strict=True):
        ((alone_K,),) = call(run, np.array([text], object))()
        assert alone_K == pytest.approx(logits_K, abs=1e-5)


def test_file_says_how_texts_become_tokens_and_nothing_of_tools_when_read() -> None:
    model = onnx.load_from_string(file())
    assert {prop.key for prop in model.metadata_props} == {"tokenizer", "longest"}
    taken = [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input]
    assert taken == [("tokens", onnx.TensorProto.INT64)]
    assert to_bytes(model) == file()


def test_time_includes_the_tokenizer_when_texts_are_long(tmp_path: Path) -> None:
    """Both texts are as many tokens for the network; one is longer to read."""
    path = tmp_path / "model.onnx"
    path.write_bytes(file())
    short, long = (
        latencies({"it": path}, np.array([text], object), 1, 1, 40, "it")["it"].p50_ms
        for text in ("wind and rain " * LONGEST, "wind and rain " * 20_000)
    )
    assert long > 5 * short
    assert peak_memory_mb(path, 1) > 10


def test_model_is_refused_in_one_line_when_it_carries_no_tokenizer() -> None:
    model = onnx.load_from_string(file())
    del model.metadata_props[:]
    with pytest.raises(BadInput, match="carries no tokenizer"):
        predict(session(to_bytes(model), 1), np.array(["wind"], object))
