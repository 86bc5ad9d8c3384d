"""What augmentation does to texts, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tasks.core.augmentation.texts import UNKNOWN, TextAugment
from tasks.core.data.dataset import Split
from tasks.core.data.encoders import encoder_of
from tasks.core.data.inputs import TextInput
from tasks.core.data.tokens import hashes_of

TEXTS, LONGEST = 4, 40  # that are shown, of so many tokens at most
UNSEEN = "\u2588"  # stands for a word that became unknown


def changed_texts(
    policy: dict[str, Any],
    given: TextInput,
    train: Split,
    refused: Sequence[tuple[str, str, dict[str, Any]]] = (),
) -> list[dict[str, Any]]:
    """Rows of texts before and after each operation alone, then after all together; at last after each of what was tried,
    and did not help."""
    assert train.tokens_N is not None
    order = np.argsort(train.labels_N, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(TEXTS, len(order))).astype(int)]
    some = train.taken(rows)
    assert some.tokens_N is not None
    tokens_NL = torch.from_numpy(np.asarray(some.tokens_N)[:, :LONGEST])
    words = encoder_of(given).names(np.asarray(some.raw_N))
    others = sorted({word for of_word in policy["synonyms"].values() for word in of_word})
    words |= {hashed: word for word, hashed in hashes_of(others).items()}
    on = policy["operations"]
    policies = {name: {**policy, "operations": {name: on[name]}} for name in on}
    shown = [(name, "", alone) for name, alone in policies.items()]
    if len(on) > 1:
        shown.append(("all together", "", policy))
    shown += list(refused)
    made = [{"name": "original", "gave": "", "texts": _sentences(tokens_NL, words)}]
    for name, gave, alone in shown:
        draws = torch.Generator().manual_seed(policy["seed"])
        changed_NL, _ = TextAugment(alone)(tokens_NL, torch.zeros(len(rows), dtype=torch.int64), draws, 1)
        made.append({"name": name.replace("_", " "), "gave": gave, "texts": _sentences(changed_NL, words)})
    return made


def _sentences(tokens_NL: torch.Tensor, words: dict[int, str]) -> list[str]:
    named = {**words, UNKNOWN: UNSEEN}
    return [" ".join(named.get(token, "?") for token in row if token) for row in tokens_NL.tolist()]
