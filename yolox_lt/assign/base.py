"""What a label assigner is, and the loop over the images of a batch."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor

from yolox_lt.types import Assignment, Predictions, Priors


class Targets(NamedTuple):
    """The objects of B images; each list holds one entry an image.

    boxes: float32 [G, 4] x1 y1 x2 y2 in the convention of the priors. labels: int64 [G], 0..C-1.
    sizes: (height, width) of the image's content, without padding.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    sizes: list[tuple[int, int]]


class Objects(NamedTuple):
    """Those of one image, as an entry of `Targets`."""

    boxes: Tensor
    labels: Tensor
    size: tuple[int, int]


class BaseAssigner:
    """Says for every prior of an image which object it is responsible for. A subclass fills in `assign_image`.

    needs_predictions: whether it looks at what the network says; only then the criterion decodes boxes.
    """

    needs_predictions: ClassVar[bool] = False

    def __call__(
        self,
        priors: Priors,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        image_size: tuple[int, int],
        predictions: Predictions | None = None,
    ) -> Assignment:
        """Assign one image: gt_index int64 [P] with -1 for background and -2 for ignored priors, iou float32 [P].

        Args:
            priors: from AnchorGrid, P in all.
            gt_boxes: float32 [G, 4] in the convention of the priors. gt_labels: int64 [G].
            image_size: (height, width) of the image's content, without padding.
            predictions: of this image, cls_logits [P, C] and boxes [P, 4] decoded; given if `needs_predictions`.
        """
        batch = None if predictions is None else with_batch_axis(predictions)
        return self.assign_batch(priors, Targets([gt_boxes], [gt_labels], [image_size]), batch)[0]

    def assign_batch(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> list[Assignment]:
        """The same for B images, one after the other; `predictions` has the batch axis."""
        return [
            self.assign_image(priors, Objects(*each), None if predictions is None else one_image(predictions, b))
            for b, each in enumerate(zip(*targets))
        ]

    def assign_image(self, priors: Priors, objects: Objects, predictions: Predictions | None) -> Assignment:
        """The same for one image; shapes as in a call."""
        raise NotImplementedError


def with_batch_axis(predictions: Predictions) -> Predictions:
    """Predictions of one image as a batch of one."""
    quality, boxes = predictions.quality_logits, predictions.boxes
    return Predictions(
        predictions.cls_logits[None],
        predictions.box_deltas[None],
        None if quality is None else quality[None],
        None if boxes is None else boxes[None],
    )


def one_image(predictions: Predictions, index: int) -> Predictions:
    """The predictions of one image, without the batch axis."""
    quality, boxes = predictions.quality_logits, predictions.boxes
    return Predictions(
        predictions.cls_logits[index],
        predictions.box_deltas[index],
        None if quality is None else quality[index],
        None if boxes is None else boxes[index],
    )
