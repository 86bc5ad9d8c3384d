"""Which networks a recipe may choose from."""

import pytest

from tasks.core.auto import networks
from tasks.core.auto.networks import OWN, PRETRAINED, RANDOM, portfolio

LITE = "timm/efficientnet_lite0"


@pytest.mark.parametrize(
    ("side", "channels", "weights", "learned"),
    [
        (64, 3, None, {LITE}),
        (64, 1, None, set()),  # grey
        (40, 3, None, set()),  # small
        (64, 3, RANDOM, set()),  # by hand
        (64, 1, PRETRAINED, {LITE, "mobilenet_v3_small", "efficientnet_b0"}),
    ],
)
def test_learned_networks_are_tried_when_images_suit_them_or_a_person_says_so(
    side: int, channels: int, weights: str | None, learned: set[str]
) -> None:
    found = portfolio(side, channels, weights)
    assert {network.arch for network in found if network.weights == PRETRAINED} == learned
    assert (set(OWN) <= set(found)) == (weights != PRETRAINED)


def test_no_learned_network_is_tried_when_no_package_brings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "packaged", lambda _: None)
    assert {network.weights for network in portfolio(64, 3, None)} == {RANDOM}
