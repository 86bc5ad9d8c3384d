"""A small network of byte pairs, and its file."""

from functools import cache

import numpy as np
import torch

from tasks.core.data.bpe import BytePairs, learned
from tasks.core.data.inputs import TextInput
from tasks.core.data.texts import Tokens
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.models.tables import adopt
from tasks.core.runtime.export import export
from tasks.core.runtime.graphs import take_raw, to_bytes

LONGEST = 16
TEXTS = ["the wind and the rain", "bread and salt", "\u5929\u6c14\u5f88\u597d"] * 30
DESCRIBED = learned(TEXTS, 300)
GIVEN = TextInput(LONGEST, 6, DESCRIBED)
PAIRS = BytePairs(DESCRIBED, LONGEST)


@cache
def network() -> torch.nn.Module:
    """Untrained. For reading only."""
    torch.manual_seed(0)
    model = build(Spec("text_cnn", 8, 0.0, None, 3, rows=200))
    flat, lengths = zip(*PAIRS.tokens_of(np.array(TEXTS, object)), strict=True)
    adopt(model, Tokens.of(np.concatenate(flat), np.cumsum(np.concatenate(lengths))))
    return model.eval()


@cache
def file() -> bytes:
    """What takes the texts' tokens, and carries the tokenizer."""
    return to_bytes(take_raw(export(network(), GIVEN), GIVEN))
