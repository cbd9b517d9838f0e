"""Copy-paste of rare objects: crops of boxes are put into other images before anything else is done to them.

Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation (arXiv 2012.07177),
with rectangles in place of masks. Which objects are pasted, and their soft edges, are ours: the others are pasted too,
or a seam would come to mean "rare".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.augment.transforms import Sample
from yolox_lt.data.frequency import category_factors, image_category_pairs
from yolox_lt.errors import UserError

RARE_SHARE = 0.5
"""Of the pasted objects; the others are of categories that the sampler does not repeat."""

MOST_PER_OBJECT = 3.0
"""What one object can add to its category's weight: a category of a single object is not pasted over and over."""

SCALE = (0.5, 1.5)
"""Of a pasted object, in proportion to its size where it comes from."""

SOFT = 2
"""Pixels over which an edge fades into the image."""

COVERED = 0.7
"""An object of which more than this share is covered is no longer one."""

Read = Callable[[int], Sample]


@dataclass(frozen=True)
class Bank:
    """N objects that can be pasted.

    image: int64 [N], place in the list of training images. box: int64 [N], which of that image's usable boxes.
    label: int64 [N]. ends: float64 [N], cumulative probabilities, the last one 1.
    """

    image: np.ndarray
    box: np.ndarray
    label: np.ndarray
    ends: np.ndarray

    def draw(self, rng: np.random.Generator) -> int:
        """Number of an object, by its probability. One request."""
        return int(np.searchsorted(self.ends, rng.random(), side="right").clip(max=len(self.ends) - 1))


def make_bank(labels: Sequence[np.ndarray], factors: np.ndarray) -> Bank:
    """The objects of all images with their probabilities.

    Half of the pastes are of repeated categories, each by r_c - 1, at most `MOST_PER_OBJECT` for each of its objects;
    within a category objects are alike. The other half are of the categories with r_c = 1, objects alike.

    Args:
        labels: of the usable boxes of each image, int64 [G]. factors: r_c, float64 [C].

    Raises:
        UserError: no category is repeated.
    """
    label = np.concatenate([np.zeros(0, dtype=np.int64), *labels])
    image = np.repeat(np.arange(len(labels)), [len(own) for own in labels])
    box = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(len(own)) for own in labels)])
    counts = np.bincount(label, minlength=len(factors))
    rare = np.minimum(factors - 1, MOST_PER_OBJECT * counts)[label] / counts[label]
    plain = (factors == 1)[label].astype(np.float64)
    if not rare.sum():
        raise UserError("copy_paste has no rare object to paste: raise repeat_thresh so that a category is repeated")
    weights = rare / rare.sum()
    if plain.sum():
        weights = RARE_SHARE * weights + (1 - RARE_SHARE) * plain / plain.sum()
    ends = np.cumsum(weights)
    return Bank(image, box, label, ends / ends[-1])


def cut(sample: Sample, box: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """An object as it is pasted: uint8 [h, w, 3], whole pixels around its box, and the box in it, float32 [4]."""
    x1, y1, x2, y2 = sample.boxes[box]
    left, top = int(np.floor(x1)), int(np.floor(y1))
    crop = sample.image[top : int(np.ceil(y2)), left : int(np.ceil(x2))]
    height, width = (max(1, round(side * scale)) for side in crop.shape[:2])
    at = np.array([x1 - left, y1 - top, x2 - left, y2 - top], dtype=np.float32)
    at *= np.array([width / crop.shape[1], height / crop.shape[0]] * 2, dtype=np.float32)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(crop, (width, height), interpolation=interpolation), at


def put(sample: Sample, crop: np.ndarray, box: np.ndarray, label: int, corner: tuple[int, int]) -> Sample:
    """A copy of the sample with a crop, uint8 [h, w, 3], at (x, y) `corner`; the crop lies inside the image.

    Objects of which more than `COVERED` is covered are dropped; a box of which a whole side is covered ends where the
    crop begins.
    """
    height, width = crop.shape[:2]
    x, y = corner
    image = sample.image.copy()
    fade = soft_mask(height, width)
    under = image[y : y + height, x : x + width]
    image[y : y + height, x : x + width] = np.rint(fade * crop + (1 - fade) * under).astype(np.uint8)
    region = np.array([x, y, x + width, y + height], dtype=np.float32)
    visible, covered = visible_part(sample.boxes, region)
    kept = covered <= COVERED
    boxes = np.concatenate([visible[kept], box[None] + np.array([x, y, x, y], dtype=np.float32)])
    return Sample(image, boxes.astype(np.float32), np.append(sample.labels[kept], np.int64(label)))


def soft_mask(height: int, width: int) -> np.ndarray:
    """Weight of a crop's pixels, float32 [h, w, 1]: 1 inside, falling to 0 over `SOFT` pixels towards its edges."""
    rows, columns = ((np.minimum(np.arange(n), np.arange(n)[::-1]) + 1) / (SOFT + 1) for n in (height, width))
    return np.minimum(1, np.minimum(rows[:, None], columns[None]))[..., None].astype(np.float32)


def visible_part(boxes: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [G, 4] without what a region [4] covers of a whole side, and the share [G] of each that it covers."""
    boxes = boxes.reshape(-1, 4).copy()
    x1, y1, x2, y2 = boxes.T
    wide = np.clip(np.minimum(x2, region[2]) - np.maximum(x1, region[0]), 0, None)
    high = np.clip(np.minimum(y2, region[3]) - np.maximum(y1, region[1]), 0, None)
    covered = wide * high / np.maximum((x2 - x1) * (y2 - y1), 1e-9)
    for low, up, other_low, other_up in ((0, 2, 1, 3), (1, 3, 0, 2)):
        across = (region[other_low] <= boxes[:, other_low]) & (region[other_up] >= boxes[:, other_up])
        touched = across & (covered > 0)
        at_start = touched & (region[low] <= boxes[:, low])
        at_end = touched & (region[up] >= boxes[:, up])
        begin = np.where(at_start, np.minimum(region[up], boxes[:, up]), boxes[:, low])
        end = np.where(at_end, np.maximum(region[low], boxes[:, low]), boxes[:, up])
        shown = end > begin  # a box that is covered wholly keeps its corners, its share says it
        boxes[:, low], boxes[:, up] = np.where(shown, begin, boxes[:, low]), np.where(shown, end, boxes[:, up])
    return boxes, covered


class CopyPaste:
    """Pastes a Poisson number of objects into each image that is read for a training sample.

    Args:
        bank: what is pasted. mean: objects for each image on average.
        partial: image -> labels of which that image may show objects without a box: these are not pasted there, since
            the pasted one would be the only one with a box.
    """

    def __init__(self, bank: Bank, mean: float, partial: Mapping[int, frozenset[int]] | None = None) -> None:
        self.bank = bank
        self.mean = mean
        self.partial = partial or {}

    def reader(self, read: Read, rng: np.random.Generator) -> Read:
        """`read` with pasted objects; what is pasted depends on the state of `rng` alone. One request."""
        own = np.random.default_rng(int(rng.integers(2**63)))

        def pasted(image: int) -> Sample:
            sample = read(image)
            for _ in range(own.poisson(self.mean)):
                sample = self.paste_one(image, sample, read, own)
            return sample

        return pasted

    def paste_one(self, image: int, sample: Sample, read: Read, rng: np.random.Generator) -> Sample:
        """The sample with one more object at a uniform place, or as it is where the object is too large for it."""
        number, scale, across, down = self.bank.draw(rng), rng.uniform(*SCALE), rng.random(), rng.random()
        label = int(self.bank.label[number])
        if label in self.partial.get(image, ()):
            return sample
        crop, box = cut(read(int(self.bank.image[number])), int(self.bank.box[number]), scale)
        room = [own - other for own, other in zip(sample.image.shape[:2], crop.shape[:2])]
        if min(room) < 0:
            return sample
        return put(sample, crop, box, label, (int(across * (room[1] + 1)), int(down * (room[0] + 1))))


def copy_paste(index: AnnotationIndex, images: np.ndarray, mean: float, threshold: float, power: float) -> CopyPaste:
    """Of the training images at these positions; rare is what repeat-factor sampling repeats.

    Raises:
        UserError: a negative mean, or no category is repeated.
    """
    if mean < 0:
        raise UserError(f"copy_paste {mean:g}: give the mean number of pasted objects of an image, 0 or more")
    _, category, number = image_category_pairs(index, images)
    factors = np.ones(len(index.image_counts))
    found = category_factors(category, number, threshold, power)
    factors[: len(found)] = found
    ends, labels = index.not_exhaustive_offsets, index.not_exhaustive_labels
    partial = {
        place: frozenset(labels[ends[position] : ends[position + 1]].tolist())
        for place, position in enumerate(images.tolist())
        if ends[position + 1] > ends[position]
    }
    return CopyPaste(make_bank([index.labels_of(i) for i in images.tolist()], factors), mean, partial)
