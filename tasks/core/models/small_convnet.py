"""A plain convolutional network for small images and small data sets.

x_NCHW: N images, C channels (1 grey, 3 RGB), H rows, W columns. K: classes.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tasks.core.models.small_resnet import conv_norm
from tasks.core.models.spec import Spec

WIDTHS = (1, 2, 4, 4)  # channels of the convolutions, times `width`
SMALLEST_MAP = 4  # pixels: below it nothing is pooled


class SmallConvNet(nn.Module):
    """Four 3x3 convolutions with batch norm and ReLU, as VGG has them (Simonyan & Zisserman 2014, arXiv:1409.1556),
    with max pooling after as many of them as the side allows, the maximum over what is left, and a linear layer.

    A maximum says whether a feature is anywhere in the picture. A mean says how much of the picture it fills, which
    few images do not teach a network to tell from everything else.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, side = spec.pixels[2], min(spec.pixels[:2])
        for factor in WIDTHS:
            layers += [*conv_norm(inputs, factor * spec.width, 1, spec.batch_norm), nn.ReLU()]
            inputs = factor * spec.width
            if side >= 2 * SMALLEST_MAP:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(inputs, spec.num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.features(x_NCHW)
        return cast(Tensor, self.head(self.dropout(y.amax((2, 3)))))
