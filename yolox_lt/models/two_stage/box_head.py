"""The second stage's head: two fully connected layers, then a classifier and a box regressor."""

from __future__ import annotations

from torch import Tensor, nn

from yolox_lt.models.init import prior_bias
from yolox_lt.models.layers import NormedLinear
from yolox_lt.models.roi import BINS


class BoxHead(nn.Module):
    """Aligned features -> logits and deltas of each region (Lin et al., arXiv 1612.03144, section 4.2).

    Start values: shared layers Xavier-uniform, classifier Normal(0, 0.01), boxes Normal(0, 0.001), biases 0.

    Args:
        channels: K of the features. num_outputs: width of the classifier, the loss's `num_outputs`.
        num_box_classes: C for boxes per category, 1 for one box a region.
        width: of the shared layers.
        prior_prob: start value in (0, 1) of all scores of a sigmoid classifier, None for a softmax.
        normed: the classifier is a `NormedLinear`.
    """

    def __init__(
        self,
        channels: int,
        num_outputs: int,
        num_box_classes: int,
        width: int = 1024,
        prior_prob: float | None = None,
        normed: bool = False,
    ) -> None:
        super().__init__()
        layers = [nn.Linear(channels * BINS * BINS, width), nn.Linear(width, width)]
        self.cls_pred: nn.Linear = NormedLinear(width, num_outputs) if normed else nn.Linear(width, num_outputs)
        self.box_pred = nn.Linear(width, 4 * num_box_classes)
        self.prior_prob = prior_prob
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.shared = nn.ModuleList(layers)
        self.reset_classifier()
        nn.init.normal_(self.box_pred.weight, std=0.001)
        nn.init.zeros_(self.box_pred.bias)

    def reset_classifier(self) -> None:
        """Draw the classifier's start values again; the second stage of decoupled training begins so."""
        nn.init.normal_(self.cls_pred.weight, std=0.01)
        nn.init.constant_(self.cls_pred.bias, 0.0 if self.prior_prob is None else prior_bias(self.prior_prob))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[N, K, 7, 7] -> logits [N, num_outputs], deltas [N, 4 * num_box_classes] (column 4c + k)."""
        x = features.flatten(1)  # [N, K, 7, 7] -> [N, K*49] in the order channel, row, column
        for layer in self.shared:
            x = nn.functional.relu(layer(x))
        return self.cls_pred(x), self.box_pred(x)
