"""Pretrained encoders of sentences: a folder with config.json, model.safetensors and tokenizer.json, as Hugging Face's
transformers and sentence-transformers (Reimers and Gurevych 2019, arXiv:1908.10084) write it.

N: texts, L: tokens of the longest, E: numbers of an embedding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.common.errors import BadInput

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
LONGEST = 128  # tokens of a text that are read; what most encoders of sentences were trained with
TOGETHER = 64  # texts, of about one length


def is_encoder(folder: Path) -> bool:
    """Whether it holds an encoder's files, and not those of static embeddings, which are called the same."""
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and "num_hidden_layers" in about and (folder / TOKENIZER).exists()


class SentenceEncoder:
    """The encoder in `folder`, on the device that is named.

    Raises:
        BadInput: transformers is not installed, or the folder holds no encoder that it can read; names `key`.
    """

    def __init__(self, key: str, folder: Path, device: torch.device | str = "cpu") -> None:
        from tokenizers import Tokenizer

        try:
            from transformers import AutoConfig, AutoModel
            from transformers.utils.logging import disable_progress_bar
        except ModuleNotFoundError:
            raise BadInput(
                f"{key}: {folder}: an encoder needs transformers: pip install 'modelpress[encoders]'"
            ) from None
        disable_progress_bar()  # type: ignore[no-untyped-call]  # of reading the file, which takes a moment
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            # Safetensors alone, and no code that lies in the folder.
            self._model: Any = AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:  # tokenizers raises no other class, and transformers many
            line = str(error).strip().partition("\n")[0]
            raise BadInput(f"{key}: {folder}: no encoder that transformers can read ({line})") from None
        if config.is_encoder_decoder:
            raise BadInput(f"{key}: {folder}: {config.model_type} decodes, too: an encoder is needed")
        self._device = torch.device(device)
        self._model.eval().to(self._device)
        self._tokenizer.enable_truncation(min(LONGEST, getattr(config, "max_position_embeddings", LONGEST)))
        self._tokenizer.enable_padding(pad_id=config.pad_token_id or 0)

    @torch.inference_mode()
    def encode(self, texts_N: NDArray[np.object_]) -> Tensor:
        """embeddings_NE, float32, on the CPU: the mean over a text's tokens of what the last layer says of each."""
        order = np.argsort([len(text) for text in texts_N], kind="stable")
        found: list[Tensor] = []
        for start in range(0, len(order), TOGETHER):
            read = self._tokenizer.encode_batch(texts_N[order[start : start + TOGETHER]].tolist())
            ids_NL, there_NL = (
                torch.tensor([getattr(text, name) for text in read], device=self._device)
                for name in ("ids", "attention_mask")
            )
            hidden_NLE = self._model(input_ids=ids_NL, attention_mask=there_NL).last_hidden_state.float()
            there_NL1 = there_NL[:, :, None]
            found.append(((hidden_NLE * there_NL1).sum(1) / there_NL1.sum(1).clamp(min=1)).cpu())
        return torch.cat(found)[np.argsort(order)]

    def save(self, folder: Path) -> None:
        """Write what it was read from, tensors and nothing else, into a folder that there is."""
        self._model.save_pretrained(folder)
        self._tokenizer.save(str(folder / TOKENIZER))
