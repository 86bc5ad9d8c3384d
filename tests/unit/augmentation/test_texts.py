"""Changes of whole batches of texts, by their tokens."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.core.augmentation.policy import OF_WORDS, resolve_policy
from tasks.core.augmentation.shown import changed_texts
from tasks.core.augmentation.texts import SHORTEST, UNKNOWN, TextAugment
from tasks.core.auto.augmentations import candidates
from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams
from tasks.core.data.bpe import BytePairs, learned
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import TextInput
from tasks.core.data.texts import Texts, Tokens
from tasks.core.data.tokens import hashes_of

SYNONYMS = {"big": ["large", "great"], "house": ["home"]}
WORDS = [
    "the",
    "big",
    "house",
    "stands",
    "here",
    ".",
    "nobody",
    "is",
    "in",
    "it",
    "!",
    "large",
    "great",
    "home",
]
HASH = hashes_of(WORDS)
TEXT = ["the", "big", "house", "stands", "here", ".", "nobody", "is", "in", "it", "!"]
SHORT = ["big", "house"]
EACH = ("synonyms", "insert", "swap", "delete", "shuffle_sentences", "token_dropout")


def batch(*texts: list[str]) -> Tensor:
    longest = max(map(len, texts))
    return torch.tensor([[HASH[w] for w in text] + [0] * (longest - len(text)) for text in texts])


def augment(seed: int = 0, strength: float = 1.0, copies: int = 200, **shares: float) -> list[list[str]]:
    policy: dict[str, Any] = {
        "longest": 32, "typical": 9, "sentence_ends": [HASH["."], HASH["!"]], "synonyms": SYNONYMS, "operations": {name: {"share": share} for name, share in shares.items()},
    }  # fmt: skip
    tokens_NL = batch(*[TEXT] * copies, SHORT)
    labels_N = torch.zeros(len(tokens_NL), dtype=torch.int64)
    changed_NL, targets_NK = TextAugment(policy, strength)(
        tokens_NL, labels_N, torch.Generator().manual_seed(seed), 2
    )
    assert targets_NK.tolist() == [[1.0, 0.0]] * len(tokens_NL)
    words = {hashed: word for word, hashed in HASH.items()} | {UNKNOWN: "?"}
    for row in changed_NL:
        assert (row[int((row != 0).sum()) :] == 0).all(), "nothing stands behind an empty place"
    return [[words[token] for token in row if token] for row in changed_NL.tolist()]


@pytest.mark.parametrize("name", EACH)
def test_texts_change_each_by_its_own_draw_when_an_operation_is_on(name: str) -> None:
    *changed, short = augment(**{name: 0.5})
    assert len({tuple(text) for text in changed}) > 1
    assert len(SHORT) < SHORTEST
    if name != "shuffle_sentences":  # which changes no short text anyway
        assert short == SHORT
    assert changed == augment(**{name: 0.5})[:-1], "the draws alone decide"
    assert changed != augment(seed=1, **{name: 0.5})[:-1]


@pytest.mark.parametrize("name", EACH)
def test_texts_stay_as_they_are_when_strength_is_zero(name: str) -> None:
    assert augment(strength=0.0, **{name: 0.5}) == [*[TEXT] * 200, SHORT]


def test_words_become_their_synonyms_and_no_others_when_they_have_some() -> None:
    seen = {
        (before, after)
        for text in augment(synonyms=0.2)[:-1]
        for before, after in zip(TEXT, text, strict=False)
    }
    assert {pair for pair in seen if pair[0] != pair[1] and pair[0] in SYNONYMS} == {
        ("big", "large"), ("big", "great"), ("house", "home"),
    }  # fmt: skip


def test_synonyms_stand_anywhere_when_they_are_inserted() -> None:
    changed = augment(insert=0.2)[:-1]
    added = [[w for w in text if w not in TEXT] for text in changed]
    assert {w for words in added for w in words} == {"large", "great", "home"}
    assert {text.index(words[0]) for text, words in zip(changed, added, strict=True) if words} == set(
        range(12)
    )
    assert all([w for w in text if w in TEXT] == TEXT for text in changed), (
        "all that was there stays, in its order"
    )


def test_words_are_the_same_in_another_order_when_they_are_swapped() -> None:
    assert all(sorted(text) == sorted(TEXT) for text in augment(swap=0.3)[:-1])


def test_something_is_left_when_everything_is_to_be_deleted() -> None:
    assert augment(delete=1.0)[:-1] == [["the"]] * 200


def test_sentences_stay_whole_when_their_order_changes() -> None:
    first, second = TEXT[:6], TEXT[6:]
    found = [tuple(text) for text in augment(shuffle_sentences=1.0)[:-1]]
    assert set(found) == {tuple(first + second), tuple(second + first)}
    assert 60 < found.count(tuple(second + first)) < 140


def test_share_of_unknown_words_is_the_one_that_is_asked_for() -> None:
    words = [w for text in augment(token_dropout=0.2)[:-1] for w in text]
    assert words.count("?") / len(words) == pytest.approx(0.2, abs=0.03)


# ---- byte pairs


def of_pairs() -> Dataset:
    texts = ["Rain falls. Wind blows! Who knows?", "Bread is baked. Soup is hot!"] * 20
    given = TextInput(24, 12, learned(texts, 300))
    assert given.tokenizer is not None
    flat, lengths = zip(*BytePairs(given.tokenizer, 24).tokens_of(np.array(texts, object)), strict=True)
    tokens = Tokens.of(np.concatenate(flat), np.cumsum(np.concatenate(lengths)))
    some = Split(Texts.of_strings(texts), np.tile([0, 1], 20), tokens_N=tokens)
    return Dataset(["weather", "food"], given, "digest", some, some, some)


def test_sentences_of_byte_pairs_change_places_whole_when_they_are_shuffled() -> None:
    dataset = of_pairs()
    policy = resolve_policy(AugmentParams(shuffle_sentences=1.0), dataset)
    shown = changed_texts(policy, dataset.input, dataset.train)
    (original, changed) = (row["texts"] for row in shown)
    assert shown[1]["name"] == "shuffle sentences"
    assert original != changed
    for before, after in zip(original, changed, strict=True):
        parts = re.findall(r"[^.!?]+[.!?]", before)
        assert len(parts) > 1
        assert sorted(part.strip() for part in parts) == sorted(
            part.strip() for part in re.findall(r"[^.!?]+[.!?]", after)
        )


@pytest.mark.parametrize("name", OF_WORDS)
def test_synonyms_are_refused_in_one_line_when_tokens_are_byte_pairs(name: str) -> None:
    with pytest.raises(BadInput, match=rf"augment\.{name}: byte pairs have no synonyms"):
        resolve_policy(AugmentParams(**{name: 0.1}), of_pairs())
    assert not [candidate for candidate in candidates(of_pairs().input) if candidate.needs_wordnet]
