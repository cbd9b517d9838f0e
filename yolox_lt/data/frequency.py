"""How often each image should be drawn, from how rare its categories are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import distinct
from yolox_lt.errors import UserError

Rounding = Literal["ceil", "stochastic", "floor", "round"]


def repeat_factors(
    source: AnnotationIndex | Sequence[Sequence[int]],
    threshold: float = 0.001,
    rounding: Rounding = "ceil",
    images: np.ndarray | None = None,
    by_instances: bool = False,
    power: float = 0.5,
    cap: float | None = None,
) -> np.ndarray:
    """Repeat factor of each image (LVIS: A Dataset for Large Vocabulary Instance Segmentation, appendix B).

    1. f_c = images with category c / images; r_c = max(1, sqrt(threshold / f_c)). Another `power` than the root's 0.5
       and the bound `cap` are our addition.
    2. An image's factor is the largest r_c of its categories, 1 if it has none.
    3. Rounding: `ceil` as in the released models ("floor" and "round" alike give int64); `stochastic` returns the
       fractional factor (float64), which the sampler rounds up or down by chance in every pass.

    Args:
        source: an annotation index (its usable boxes count), or for each image the categories of its objects; an image
            counts once for a category however many objects it has.
        threshold: image fraction below which a category is repeated; 0 repeats nothing.
        images: positions of the images that are trained on, None for all; f_c and the result refer to these.
        by_instances: instance-aware factors (IRFS), see `instance_aware_factors`.
        power: 0 or more; 0 repeats nothing, 1 shows every category below the threshold equally often.
        cap: largest factor, at least 1; None: no bound.
    """
    image, category, num_images = image_category_pairs(source, images)
    factor = category_factors(category, num_images, threshold, power)
    if by_instances:
        _, objects, _ = objects_of(source, images)
        factor = instance_aware_factors(np.bincount(category), np.bincount(objects), num_images, threshold, power)
    factor = factor if cap is None else np.minimum(factor, cap)
    result = np.ones(num_images)
    np.maximum.at(result, image, factor[category])
    if rounding == "stochastic":
        return result
    rounders = {"ceil": np.ceil, "floor": np.floor, "round": np.rint}
    if rounding not in rounders:
        raise ValueError(f"rounding must be one of {[*rounders, 'stochastic']}, not {rounding!r}")
    return rounders[rounding](result).astype(np.int64)


def factors_by(
    sampler: str,
    index: AnnotationIndex,
    images: np.ndarray,
    threshold: float,
    rounding: str,
    power: float,
    cap: float | None,
) -> np.ndarray:
    """Repeat factor of each image at the positions `images`, by the name of the sampler; the rest as `repeat_factors`.

    Raises:
        UserError: another sampler, rounding, power or cap.
    """
    if rounding not in get_args(Rounding):
        raise UserError(f"repeat_rounding {rounding!r} is unknown; choose one of {', '.join(get_args(Rounding))}")
    if sampler == "uniform":
        return np.ones(len(images), dtype=np.int64)
    if sampler == "class_balanced":
        return class_balanced_factors(index, images)
    if sampler in ("repeat_factor", "instance_repeat_factor"):
        if power < 0 or (cap is not None and cap < 1):
            raise UserError(
                f"repeat_power {power:g}, repeat_cap {cap}: give a power of at least 0 and a cap of at least 1, or None"
            )
        by_instances = sampler == "instance_repeat_factor"
        return repeat_factors(index, threshold, cast(Rounding, rounding), images, by_instances, power, cap)
    raise UserError(
        f"sampler {sampler!r} is unknown; choose one of uniform, repeat_factor, instance_repeat_factor, class_balanced"
    )


def category_factors(category: np.ndarray, num_images: int, threshold: float, power: float = 0.5) -> np.ndarray:
    """r_c float64 [C] from the category of each distinct (image, category) pair; 1 for categories in no image."""
    counts = np.bincount(category) if len(category) else np.zeros(0)
    fraction = np.maximum(counts, 1) / max(num_images, 1)
    return np.where(counts > 0, np.maximum(1.0, raised(threshold / fraction, power)), 1.0)


def instance_aware_factors(
    image_counts: np.ndarray, instance_counts: np.ndarray, num_images: int, threshold: float, power: float = 0.5
) -> np.ndarray:
    """r_c float64 [C] of IRFS: in place of f_c the geometric mean of f_c and of the category's share of all objects.

    So categories with few objects that are spread over many images are repeated too. 1 for categories in no image.
    Source: Yaman et al., Instance-Aware Repeat Factor Sampling for Long-Tailed Object Detection, 2023.

    Args:
        image_counts, instance_counts: int64 [C], images with the category, objects of it.
    """
    share = np.sqrt(
        np.maximum(image_counts, 1)
        / max(num_images, 1)
        * np.maximum(instance_counts, 1)
        / max(instance_counts.sum(), 1)
    )
    return np.where(image_counts > 0, np.maximum(1.0, raised(threshold / share, power)), 1.0)


def raised(ratio: np.ndarray, power: float) -> np.ndarray:
    """ratio^power; the root itself for 0.5, whose last bit decides where a factor is rounded."""
    return np.sqrt(ratio) if power == 0.5 else ratio**power


def class_balanced_factors(
    source: AnnotationIndex | Sequence[Sequence[int]], images: np.ndarray | None = None
) -> np.ndarray:
    """Factors float64 [images] that draw every category equally often: a uniform category, then a uniform image of it.

    An image of n is drawn with the probability p = mean over the categories c that have images of [image has c] / n_c;
    its factor is n * p, to be rounded by chance in every pass. A pass so has n draws on average, with the expected
    counts of independent draws and less chance. Images without objects have factor 0 and are never drawn.
    """
    image, category, num_images = image_category_pairs(source, images)
    counts = np.bincount(category)
    weights = 1 / (counts[category] * max(np.count_nonzero(counts), 1))
    return num_images * np.bincount(image, weights, minlength=num_images)


def image_category_pairs(
    source: AnnotationIndex | Sequence[Sequence[int]], images: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Distinct pairs: image position int64 [M], category int64 [M] and the number of images."""
    image, category, num_images = objects_of(source, images)
    base = int(category.max()) + 1 if len(category) else 1
    code = distinct(image * base + category)
    return code // base, code % base, num_images


def objects_of(
    source: AnnotationIndex | Sequence[Sequence[int]], images: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Image position int64 [N] and category int64 [N] of every (usable) object, and the number of images.

    With `images` only those at these positions count, and image positions refer to this list.
    """
    if isinstance(source, AnnotationIndex):
        num_images = len(source)
        image = np.repeat(np.arange(num_images), np.diff(source.box_offsets))[source.usable]
        category = np.asarray(source.labels)[source.usable]
    else:
        num_images = len(source)
        image = np.repeat(np.arange(num_images), [len(c) for c in source])
        category = np.fromiter((c for image_categories in source for c in image_categories), np.int64, len(image))
    if images is not None:
        position = np.full(num_images, -1)
        position[images] = np.arange(len(images))
        keep = position[image] >= 0
        image, category, num_images = position[image[keep]], category[keep], len(images)
    return image, category, num_images
