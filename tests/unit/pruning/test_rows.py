"""Rows of words leave by what they say and by how often they are read."""

import numpy as np
import pytest
import torch

from tasks.core.data.inputs import TextInput
from tasks.core.data.texts import Tokens
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.models.tables import FACTOR, Table, usage
from tasks.core.models.text_bag import TextBag
from tasks.core.pruning.channels import find_groups
from tasks.core.pruning.criteria import CRITERIA
from tasks.core.pruning.cutting import Pruner, prune_channels, score
from tasks.core.pruning.groups import ROWS

GIVEN = TextInput(12, 4)
# Two texts: word 1 stands in five places, 2 and 3 in two each, 4 and 9 in one; 9 has no row.
TOKENS = Tokens.of(np.array([1, 1, 2, 3, 1, 2, 1, 3, 1, 4, 9], np.uint32), np.array([4, 11]))


def bag() -> TextBag:
    """Words 1 to 4 and the pair (1, 1), whose rows are the larger the rarer they are."""
    torch.manual_seed(0)
    network = build(Spec("text_bag", 16, 0.0, None, 3, rows=5))
    assert isinstance(network, TextBag)
    network.table.keys.copy_(torch.tensor([1, 2, 3, 4, FACTOR + 1]))
    with torch.no_grad():
        network.table.weight.copy_(torch.tensor([0.0, 1.0, 1.2, 1.2, 1.4, 1.4])[:, None].expand(6, 16))
    return network.eval()


def test_usage_counts_the_places_of_words_and_pairs_when_texts_are_given() -> None:
    assert {name: read.tolist() for name, read in usage(bag(), TOKENS).items()} == {
        "table": [2 * 11 - (5 + 2 + 2 + 1 + 1), 5, 2, 2, 1, 1]
    }


def test_usage_is_of_no_table_when_examples_are_no_texts() -> None:
    assert usage(bag(), None) == {}


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "random"])
def test_rare_words_leave_first_when_it_is_known_how_often_they_are_read(criterion: str) -> None:
    network = bag()
    groups = find_groups(network, GIVEN, 1)
    gradients = [{name: torch.ones_like(value) for name, value in network.named_parameters()}]
    given = gradients if criterion == "taylor" else None
    prune_channels(
        network,
        groups,
        score(network, groups, criterion, given, usage=usage(network, TOKENS)),
        {f"table.{ROWS}": 0.4},
    )
    assert network.table.keys.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("classes", "prunable"), [(3, [f"table.{ROWS}"]), (20, ["table", f"table.{ROWS}"])])
def test_width_stays_when_rows_are_stored_in_fewer_numbers_anyway(classes: int, prunable: list[str]) -> None:
    groups = find_groups(build(Spec("text_bag", 16, 0.0, None, classes, rows=5)), GIVEN, 1)
    assert [group.name for group in groups.prunable] == prunable
    assert ("table" in {kept.layer for kept in groups.kept_whole}) == ("table" not in prunable)


def test_pruner_counts_anew_what_is_left_when_it_goes_in_steps() -> None:
    network = bag()
    pruner = Pruner(network, GIVEN, 0.6, "l2", "uniform", 3, 1, tokens=TOKENS)
    for _ in range(3):
        pruner.step()
    assert isinstance(network.table, Table)
    assert 1 in network.table.keys.tolist()
    assert len(network.table.keys) == 2
