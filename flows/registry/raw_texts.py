"""A model of byte pairs as MLflow serves it, from raw texts to logits.

MLflow keeps this file beside the model and runs it where neither modelpress nor its packages need be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from tokenizers import Tokenizer

ONNX = "onnx"  # the artefact


class RawTexts(PythonModel):
    """The file and the tokenizer that it carries."""

    def load_context(self, context: Any) -> None:
        """MLflow's: once, before the first prediction."""
        self._run: Any = onnxruntime.InferenceSession(
            context.artifacts[ONNX], providers=["CPUExecutionProvider"]
        )
        about = self._run.get_modelmeta().custom_metadata_map
        self._tokenizer = Tokenizer.from_str(about["tokenizer"])
        self._tokenizer.enable_truncation(int(about["longest"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002  # hints are a schema to MLflow
        """`logits` of texts, [N, K]."""
        texts = [str(text) for text in np.asarray(model_input).ravel()]
        found = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        tokens_NL = np.zeros((len(found), max([2, *map(len, found)])), np.int64)
        for row_L, ids in zip(tokens_NL, found, strict=True):
            row_L[: len(ids)] = np.array(ids, np.int64) + 1  # 0 stands behind a text's last
        (logits_NK,) = self._run.run(["logits"], {"tokens": tokens_NL})
        return {"logits": logits_NK}


set_model(RawTexts())
