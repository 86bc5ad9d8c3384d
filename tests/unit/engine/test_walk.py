"""What a run says of stages that failed, and of those behind them."""

import pytest

from flows.engine.walk import _raise_failures
from tasks.core.common.errors import BadInput


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        ([], "no labels"),
        (["a", "b"], "no labels (not run: a, b)"),
        (list("abcd"), "no labels (not run: 4 stages)"),
    ],
)
def test_stages_behind_a_failure_are_named_when_few_and_counted_when_many(
    behind: list[str], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        _raise_failures({"ingest": BadInput("no labels"), **dict.fromkeys(behind)})
    assert str(refused.value) == said
