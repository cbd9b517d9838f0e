"""A short text that tells one set of annotations from another."""

from __future__ import annotations

import hashlib

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex


def fingerprint(index: AnnotationIndex) -> str:
    """32 hexadecimal digits of what a training sees: image ids and sizes, boxes and their labels, category names.

    Where files lie does not count, so a data set that has been moved keeps its fingerprint.
    """
    digest = hashlib.blake2b(digest_size=16)
    for column in (index.image_ids, index.sizes, index.box_offsets, index.boxes, index.labels, index.usable):
        digest.update(np.ascontiguousarray(column).data)
    digest.update("\0".join(index.category_names).encode())
    return digest.hexdigest()
