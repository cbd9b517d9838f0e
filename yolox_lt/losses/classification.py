"""What criterion, model, predictor and balance history ask of a classification loss; yours derives from it."""

from __future__ import annotations

from torch import Tensor, nn

from yolox_lt.errors import UserError


class CategoryLoss(nn.Module):
    """Any loss on categories: the dense ones, `ClassificationLoss`, and those of regions, `RegionLoss`."""

    def category_state(self) -> dict[str, Tensor]:
        """What the run's history keeps after every epoch, each [C] by name; empty for a loss without a memory."""
        return {}

    def set_class_weights(self, weights: Tensor) -> None:
        """Multiply the loss of each category's column by its weight from now on; weights: [C], above 0.

        Raises:
            UserError: in this loss a category has no column of its own.
        """
        raise UserError(
            f"class_weights: {type(self).__name__} has no column that belongs to a category alone; take one of the "
            "losses on sigmoids (cls_loss qfl, eqfl, ...), or leave class_weights out"
        )


class ClassificationLoss(CategoryLoss):
    """A loss on the classifier's outputs of N priors. Everything but `forward` has an answer that fits sigmoid losses.

    A loss may weigh every row and category as it likes, keep a state in buffers (saved with the criterion, resumed,
    never averaged), and have another number of outputs than categories. State that changes once an optimiser step
    is a `StepState`.
    """

    def num_outputs(self, num_classes: int) -> int:
        """Width W of the classifier for C categories: C, or C + 1 for a softmax with a background."""
        return num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """Outputs [..., W] -> scores [..., C] in [0, 1]; evaluation and exported files use it, so without state."""
        return logits.sigmoid()

    def forward(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """Scalar, differentiable in the logits: the sum over all rows that are not ignored, over `normalizer`.

        Args:
            logits: [N, W]. labels: int64 [N], 0..C-1, -1 background, -2 ignored.
            quality: float [N], how good the box of a positive is, in [0, 1]; None: not known.
            normalizer: float or scalar tensor.
        """
        raise NotImplementedError


def own_scores(loss: nn.Module) -> bool:
    """Whether a loss turns outputs into scores otherwise than by a sigmoid each."""
    return getattr(type(loss), "scores", ClassificationLoss.scores) is not ClassificationLoss.scores
