"""Where sentences end, in tokens."""

from __future__ import annotations

from tasks.core.data.inputs import TextInput
from tasks.core.data.tokens import hashes_of

ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u061f", "\u0964")


def sentence_ends(given: TextInput) -> list[int]:
    """The tokens that a sentence ends with, ascending."""
    if given.tokenizer is None:
        return sorted(hashes_of(ENDS).values())
    from tasks.core.data.bpe import BytePairs  # with a library that words do not need

    names = BytePairs(given.tokenizer, given.longest).names()
    return sorted(token for token, name in names.items() if name.endswith(ENDS))
