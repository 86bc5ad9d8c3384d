"""Batches: each example once an epoch, and texts with such as are about as long."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tasks.core.data.dataset import Split
from tasks.core.data.inputs import ImageInput, TextInput
from tasks.core.data.parts import parts
from tasks.core.data.texts import Texts, Tokens
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.models.tables import adopt
from tasks.core.training.batches import TrainingBatches, sample
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import predict

CPU = torch.device("cpu")


def split_of(lengths: Any) -> Split:
    """Text i is so many tokens long, all of them i + 1, and its label is i."""
    lengths_N = np.asarray(lengths, np.int64)
    tokens = np.repeat(np.arange(1, len(lengths_N) + 1), lengths_N).astype(np.uint32)
    texts = Texts.of_strings(["text"] * len(lengths_N))
    return Split(texts, np.arange(len(lengths_N)), tokens_N=Tokens.of(tokens, np.cumsum(lengths_N)))


def epoch_of(split: Split, number: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    recipe = cast(Any, SimpleNamespace(batch_size=16, seed=0))
    return list(TrainingBatches(split, recipe, CPU).epoch(number))


LENGTHS = np.random.default_rng(0).geometric(0.05, 1000)


def test_texts_are_those_of_like_length_when_a_batch_is_cut() -> None:
    batches = epoch_of(split_of(LENGTHS))
    computed = sum(tokens_NL.numel() for tokens_NL, _ in batches)
    drawn = np.random.default_rng(1).permutation(1000)[:992].reshape(-1, 16)
    assert computed < 0.5 * (LENGTHS[drawn].max(1) * 16).sum(), "a batch is as long as its longest text"


def test_every_text_comes_once_and_whole_when_an_epoch_is_over() -> None:
    batches = epoch_of(split_of(LENGTHS))
    seen = torch.cat([labels_N for _, labels_N in batches])
    assert len(seen) == len(seen.unique()) == 992
    for tokens_NL, labels_N in batches:
        wanted_N = labels_N + 1
        assert ((tokens_NL == wanted_N[:, None]).sum(1) == torch.tensor(LENGTHS)[labels_N]).all()


def test_batches_are_others_in_another_epoch_and_the_same_when_it_is_drawn_again() -> None:
    split = split_of(LENGTHS)
    first, again, second = (
        [frozenset(labels_N.tolist()) for _, labels_N in epoch_of(split, number)] for number in (0, 0, 1)
    )
    assert first == again
    assert len(set(first) & set(second)) < 3, "texts meet others"
    lengths = [tokens_NL.shape[1] for tokens_NL, _ in epoch_of(split)]
    assert lengths != sorted(lengths), "and long ones do not come last"


class Echo(torch.nn.Module):
    """A network whose logits are the first number of each example, and how many it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.widths: list[int] = []

    def forward(self, x_N: torch.Tensor) -> torch.Tensor:
        self.widths.append(x_N.shape[1])
        return x_N.flatten(1)[:, :2].float()


@pytest.mark.parametrize("count", [1, 499, 501, 1000])
def test_logits_are_in_the_order_of_the_texts_when_they_were_predicted_by_length(count: int) -> None:
    split, model = split_of(np.resize(LENGTHS, count)), Echo()
    assert predict(model, split, TextInput(256, 20))[:, 0].tolist() == list(range(1, count + 1))
    assert model.widths == sorted(model.widths)


def test_samples_are_texts_of_like_length_and_the_same_ones_when_they_are_drawn_again() -> None:
    first, again = (list(sample(Echo(), split_of(LENGTHS), TextInput(256, 20), 500, 64)) for _ in range(2))
    lengths = [tokens_NL.shape[1] for tokens_NL, _ in first]
    assert len(lengths) == 7 and lengths == sorted(lengths) and lengths[0] < lengths[-1] / 4
    assert all(torch.equal(mine, other) for (mine, _), (other, _) in zip(first, again, strict=True))


def test_statistics_are_as_when_it_learns_when_batch_norm_of_a_text_network_is_set_anew() -> None:
    split = split_of(LENGTHS[:640])
    torch.manual_seed(0)
    model = build(Spec("text_cnn", 4, 0.0, None, 640, rows=640))
    adopt(model, split.tokens_N)
    recalibrate(model, split, TextInput(256, 20))
    found = [norm.running_var.clone() for norm in norms_of(model)]
    for norm in norms_of(model):
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for tokens_NL, _ in epoch_of(split):
        model(tokens_NL)
    for mine, norm in zip(found, norms_of(model), strict=True):
        assert (mine / norm.running_var).log().abs().max() < 0.3


def norms_of(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_parts_are_in_order_when_all_examples_are_of_one_size() -> None:
    assert [len(rows) for rows in parts(1001)] == [500, 500, 1]
    assert np.concatenate(parts(1001)).tolist() == list(range(1001))
    images = Split(np.zeros((7, 2, 2, 1), np.uint8), np.arange(7))
    assert predict(Echo(), images, ImageInput((2, 2, 1), [0.0], [1.0])).shape == (7, 2)
