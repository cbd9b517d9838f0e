"""How far an exported file is from the PyTorch model it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import cv2
import numpy as np
import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.errors import UserError
from yolox_lt.export.regions import FileRegions
from yolox_lt.export.runtime import ExportedModel, finish
from yolox_lt.inference import LoadedDetector
from yolox_lt.models import Detector
from yolox_lt.models.two_stage import RegionPredictions
from yolox_lt.predict import Predictor
from yolox_lt.types import Batch, Detections, Predictions, Priors

MAX_PIXELS = 1e-3
"""Largest allowed difference of a box's side inside the input."""

MAX_SCORE = 1e-4
"""Largest allowed difference of a score."""

ROUNDING_FACTOR = 10
"""Differences may be so many times the model's own distance from float64 where that is more than the limits above."""

SAME_BOX = 1.0
"""Two detections of one category are the same when no side differs by more pixels."""

SAME_PROPOSALS = 0.95
"""Least share of a two-stage model's proposals that the file has too, within SAME_BOX pixels."""

RANDOM_IMAGES = 3


@dataclass(frozen=True)
class Difference:
    """Largest differences found; boxes in pixels inside the input, scores in [0, 1].

    compared: how many boxes were.
    rounding: the model's own distances from float64 (boxes, scores), measured where the differences are
        largest, and only where they exceed a limit.
    """

    boxes: float
    scores: float
    compared: int
    rounding: tuple[float, float] | None = None

    def allowed(self) -> bool:
        """Whether the file may be used: within the limits, or near the model's own rounding."""
        boxes, scores = self.rounding or (0.0, 0.0)
        # Written so that NaN is refused.
        return self.boxes <= max(MAX_PIXELS, ROUNDING_FACTOR * boxes) and self.scores <= max(
            MAX_SCORE, ROUNDING_FACTOR * scores
        )

    def text(self) -> str:
        """The differences as a sentence."""
        text = f"{self.boxes:.2g} px and {self.scores:.2g} in score over {self.compared:,} boxes"
        if self.rounding is not None:
            text += f" (float32 itself differs from float64 by {self.rounding[0]:.2g} px and {self.rounding[1]:.2g})"
        return text


def compare(detector: LoadedDetector, model: ExportedModel, images: Sequence[np.ndarray]) -> Difference:
    """The largest differences over random images and `images` (uint8 [H, W, 3] BGR).

    Without NMS the boxes and scores of all priors count, otherwise detections, see `detection_difference`; of two
    stages those of the second, see `region_difference`. Boxes count
    as far as they lie inside the input: those of background priors can be many times as large, and so is their
    rounding.
    """
    boxes, scores, compared = 0.0, 0.0, 0
    far, wrong = None, None  # the batches where boxes and scores differ most, if by more than is allowed
    for batch in batches(detector, model, [*random_images(RANDOM_IMAGES), *images]):
        here, change, count = batch_difference(detector, model, batch)
        far = batch if here > max(boxes, MAX_PIXELS) else far
        wrong = batch if change > max(scores, MAX_SCORE) else wrong
        boxes, scores, compared = max_or_nan(boxes, here), max_or_nan(scores, change), compared + count
    own = [rounding_error(detector, model, batch) for batch in (far, wrong) if batch is not None]
    rounding = (max(pixels for pixels, _ in own), max(change for _, change in own)) if own else None
    return Difference(boxes, scores, compared, rounding)


def max_or_nan(a: float, b: float) -> float:
    """The larger number, NaN if `b` is NaN."""
    return max(a, b) if b == b else b


def random_images(number: int, seed: int = 0) -> list[np.ndarray]:
    """Images of smooth colours with rectangles in front, of several sizes; uint8 [H, W, 3] BGR."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(number):
        width = int(rng.integers(320, 640))
        height = int(width * rng.uniform(0.6, 0.9))  # wide, as a fixed size of ResNet models asks for
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
        for _ in range(12):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            side = rng.integers(10, height // 2, 2)
            color = [int(v) for v in rng.integers(0, 256, 3)]
            cv2.rectangle(image, (x, y), (x + int(side[0]), y + int(side[1])), color, -1)
        images.append(image)
    return images


def batches(detector: LoadedDetector, model: ExportedModel, images: Sequence[np.ndarray]) -> Iterator[Batch]:
    """Each image alone; two together and one on a wider canvas if the file takes that."""
    exp = detector.exp
    transform, collate = exp.get_eval_transform(), exp.get_collate()
    items = [transform(image) for image in images]
    for item in items:
        yield collate([item])
    if model.metadata.batch != 1:
        yield collate(items[:2])
    if model.metadata.size is None:
        batch = collate(items[:1])
        bottom, right = model.metadata.size_divisor, 2 * model.metadata.size_divisor
        wider = torch.nn.functional.pad(batch.images, (0, right, 0, bottom), value=collate.fill)
        yield replace(batch, images=wider)


def batch_difference(detector: LoadedDetector, model: ExportedModel, batch: Batch) -> tuple[float, float, int]:
    """Largest difference of boxes, of scores, and the number of boxes."""
    images = model.fit(batch)
    predictions, priors = reference(detector, images, batch)
    inside = detector.limits("auto") if model.metadata.thresholds_inside else None
    predictor = detector.predictor(detector.exp.get_predictor().class_agnostic, inside)
    size = (images.shape[2], images.shape[3])
    if model.of_regions:
        exported, _ = model(images, batch.image_sizes)
        assert isinstance(exported, RegionPredictions)
        assert isinstance(predictions, RegionPredictions)
        return region_difference(exported, predictions, batch, predictor)
    if model.metadata.nms:
        # In pixels of the input, so that what counts does not depend on how large the original is.
        batch = replace(batch, scales=torch.ones_like(batch.scales), original_sizes=batch.image_sizes)
        want = predictor(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)
        found = finish(model.outputs(images, batch.image_sizes), batch, predictor, model.metadata.legacy)
        boxes, scores = zip(*(detection_difference(a, b, predictor) for a, b in zip(found, want)))
        return reduce(max_or_nan, boxes), reduce(max_or_nan, scores), sum(map(len, want))
    exported, _ = model(images, batch.image_sizes)
    return *decoded_difference(exported, predictions, priors, predictor, size, True), predictions.box_deltas[
        ..., 0
    ].numel()


def region_difference(
    found: RegionPredictions, want: RegionPredictions, batch: Batch, predictor: Predictor
) -> tuple[float, float, int]:
    """Largest difference of boxes and scores of the second stage on the regions of `found`, and the number of boxes.

    Detections themselves cannot be compared: where two proposals overlap by almost the threshold of NMS, the last digit
    decides which of them stays, here and in any two runs. So `found`, a file or the same model in another precision,
    proposes, and both classify that; boxes count as infinitely far where the proposals are others by more than a few.
    """
    sizes = [(int(height), int(width)) for height, width in batch.image_sizes.tolist()]
    regions = [proposals.boxes for proposals in found.propose(sizes)]
    for ours, theirs in zip(regions, want.propose(sizes)):
        distances = torch.cdist(ours.double(), theirs.boxes.double(), p=float("inf"))  # [R, S]
        paired = [(distances.amin(dim=side) <= SAME_BOX).double().mean().item() for side in (0, 1)]
        if not min(paired) >= SAME_PROPOSALS:  # also without any proposal, where the mean is NaN
            return (0.0, 0.0, 0) if distances.shape == (0, 0) else (float("inf"), float("inf"), 0)
    of_found = replace(predictor, scores=None, calibrator=None) if isinstance(found, FileRegions) else predictor
    one, other = (
        decoded_regions(*predictions.classify(regions), regions, sizes, rule)
        for predictions, rule in ((found, of_found), (want, predictor))
    )
    boxes, scores = ((a - b).abs().max().item() for a, b in zip(one, other))
    return boxes, scores, one[0].shape[0] * one[0].shape[1]


def decoded_regions(
    logits: Tensor, deltas: Tensor, regions: list[Tensor], sizes: list[tuple[int, int]], predictor: Predictor
) -> tuple[Tensor, Tensor]:
    """Boxes [N, C, 4] (or [N, 1, 4]) inside the images and scores [N, C] of the regions of all images."""
    per_region = deltas.unflatten(1, (-1, 4)).double()  # [N, 4C] -> [N, C, 4]
    counts = [len(boxes) for boxes in regions]
    boxes = [
        box_ops.clip(predictor.coder.decode(own[:, None].double().expand_as(part), part), size)
        for own, part, size in zip(regions, per_region.split(counts), sizes)
    ]
    return torch.cat(boxes), predictor.logits(logits.double()).sigmoid()


@torch.no_grad()
def reference(detector: LoadedDetector, images: Tensor, batch: Batch) -> tuple[Predictions, Priors]:
    """What the PyTorch model says, in the precision of its weights."""
    assert isinstance(detector.model, Detector)
    network_input = detector.preprocessor(images.to(torch.uint8), batch.image_sizes)
    return detector.model(network_input.to(next(detector.model.parameters()).dtype))


def decoded_difference(
    one: Predictions, other: Predictions, priors: Priors, predictor: Predictor, size: tuple[int, int], of_file: bool
) -> tuple[float, float]:
    """Largest difference of a box inside the input and of a score, over all priors.

    of_file: `one` is what a file gives, with one logit a category whatever the loss.
    """
    of_one = replace(predictor, scores=None, calibrator=None) if of_file else predictor
    boxes = scores = 0.0
    for b in range(len(one.cls_logits)):  # scores of one image can fill a gigabyte
        ours, theirs = (decoded(p, b, priors, q, size) for p, q in ((one, of_one), (other, predictor)))
        boxes = max_or_nan(boxes, (ours[0] - theirs[0]).abs().max().item())
        scores = max_or_nan(scores, (ours[1] - theirs[1]).abs().max().item())
    return boxes, scores


def decoded(
    predictions: Predictions, b: int, priors: Priors, predictor: Predictor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes [P, 4] inside the input and scores [P, C] of image b."""
    boxes = predictor.coder.decode(priors.plain(), predictions.box_deltas[b])
    scores = predictor.logits(predictions.cls_logits[b]).sigmoid()
    if predictions.quality_logits is not None:
        scores *= predictions.quality_logits[b].sigmoid()[:, None]
    return box_ops.clip(boxes, size), scores


def rounding_error(detector: LoadedDetector, model: ExportedModel, batch: Batch) -> tuple[float, float]:
    """Largest differences of a box inside the input and of a score between the model in float32 and in float64."""
    assert isinstance(detector.model, Detector)
    images = model.fit(batch)
    predictor, size = detector.predictor(), (images.shape[2], images.shape[3])
    if model.of_regions:
        return region_rounding(detector, images, batch)
    single, priors = reference(detector, images, batch)
    try:
        detector.model.double()
        double, _ = reference(detector, images, batch)
    finally:
        detector.model.float()
    return decoded_difference(single, double, priors, predictor, size, False)


def region_rounding(detector: LoadedDetector, images: Tensor, batch: Batch) -> tuple[float, float]:
    """The same for the second stage of a two-stage model, on the regions that its float32 run proposes."""
    assert isinstance(detector.model, Detector)
    predictor = detector.predictor()
    single, _ = reference(detector, images, batch)
    try:
        detector.model.double()
        double, _ = reference(detector, images, batch)
        assert isinstance(single, RegionPredictions)
        assert isinstance(double, RegionPredictions)
        sizes = [(int(height), int(width)) for height, width in batch.image_sizes.tolist()]
        regions = [proposals.boxes for proposals in single.propose(sizes)]
        want = decoded_regions(*double.classify(regions), regions, sizes, predictor)
    finally:
        detector.model.float()
    found = decoded_regions(*single.classify(regions), regions, sizes, predictor)
    boxes, scores = ((a - b).abs().max().item() for a, b in zip(found, want))
    return boxes, scores


def detection_difference(found: Detections, want: Detections, predictor: Predictor) -> tuple[float, float]:
    """Largest difference of boxes and scores between two lists for one image.

    Detections of one category whose sides differ by at most SAME_BOX pixels are a pair. One without a partner counts as
    a difference in score: how much better it is than the worst that the other list would have taken, or than a
    neighbour of its category there that explains its absence (of two equally good boxes either may suppress the other).
    """
    boxes = scores = 0.0
    for ours, theirs in ((found, want), (want, found)):
        full = len(theirs) >= predictor.max_detections
        floor = theirs.scores.min().item() if full else max(predictor.score_threshold, 0.0)
        for box, score, label in zip(ours.boxes, ours.scores, ours.labels):
            same = (theirs.labels == label).nonzero().squeeze(1)
            distance = (theirs.boxes[same] - box).abs().amax(dim=1)
            change = (theirs.scores[same] - score).abs()
            paired = distance <= SAME_BOX
            if paired.any():
                best = int(torch.where(paired, distance + change, torch.inf).argmin())
                boxes, scores = max_or_nan(boxes, distance[best].item()), max_or_nan(scores, change[best].item())
                continue
            rivals = box_ops.pairwise_iou(box[None], theirs.boxes[same])[0] > predictor.nms_threshold
            scores = max_or_nan(scores, min([abs(score.item() - floor), *change[rivals].tolist()]))
    return boxes, scores


def check(difference: Difference, target: object) -> None:
    """Refuse a file that differs from its model.

    Raises:
        UserError: it differs by more than is allowed.
    """
    if not difference.allowed():
        raise UserError(
            f"{target}: not written, the exported network differs from the model by {difference.text()} where "
            f"{MAX_PIXELS:g} px and {MAX_SCORE:g} are allowed; try another --opset or --format"
        )
