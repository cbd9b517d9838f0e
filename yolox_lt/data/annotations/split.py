"""Cut a data set into a training and a validation part so that rare categories are in both."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.annotations.held_out import two_parts
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Ints
from yolox_lt.data.frequency import image_category_pairs


def split_images(index: AnnotationIndex, share: float, seed: int = 0) -> tuple[Ints, Ints]:
    """Positions int64, ascending, of the training and of the validation images.

    From the rarest category to the most frequent one, its images that have no part yet are split at random: so many to
    validation that it has `share` of all images with the category, at least one and at most all but one. A category
    with a single image stays in training. Dealing rarer categories can leave another one in one part only; then an
    image is moved over, if every category of that image stays in both parts. Of several dealings the one is taken that
    lacks the fewest categories, in training first; with many single images some always are, see `lost_categories`.

    Args:
        share: of the images for validation, above 0 and below 1. seed: of the dealing.
    """
    image, category, num_images = image_category_pairs(index)
    return two_parts(image, category, num_images, len(index.category_ids), share, seed)


def lost_categories(index: AnnotationIndex, part: Ints) -> Ints:
    """Labels of the categories that have images but none at the positions `part`."""
    _, category, _ = image_category_pairs(index, part)
    return np.setdiff1d(np.flatnonzero(index.image_counts), category)
