"""Random annotations and detections in COCO's layout for the tests of the evaluators."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_case(
    seed: int, federated: bool = True, crowd: bool = False, num_images: int = 12, num_categories: int = 5
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and detections with ties of scores and IoUs, empty images, gaps between ids, boxes of all sizes."""
    rng = np.random.default_rng(seed)
    category_ids = np.sort(rng.choice(40, num_categories, replace=False)).tolist()
    images, annotations, detections = [], [], []
    for image_id in rng.choice(1000, num_images, replace=False).tolist():
        present = set()
        for _ in range(int(rng.integers(0, 9))):
            category = int(rng.choice(category_ids))
            present.add(category)
            box = np.concatenate([rng.integers(0, 60, 2), rng.choice([10, 20, 32, 64, 96, 150], 2)]).tolist()
            area = float(box[2] * box[3] * rng.choice([1, 0.5]))
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": box}
            annotations.append({**entry, "area": area, "iscrowd": int(crowd and rng.random() < 0.2)})
            for _ in range(int(rng.integers(0, 4))):
                moved = np.array(box) + rng.choice([-8, -3, -1, 0, 0, 1, 3, 8], 4)
                wrong = rng.random() < 0.2
                detections.append((image_id, int(rng.choice(category_ids)) if wrong else category, moved.tolist()))
        for _ in range(int(rng.integers(0, 5))):
            detections.append((image_id, int(rng.choice(category_ids)), rng.integers(1, 90, 4).tolist()))
        image: dict[str, Any] = {"id": image_id, "width": 200, "height": 200}
        if federated:
            image["neg_category_ids"] = [c for c in category_ids if c not in present and rng.random() < 0.5]
            image["not_exhaustive_category_ids"] = [c for c in sorted(present) if rng.random() < 0.2]
        images.append(image)
    categories = [{"id": c, "name": f"c{c}", "frequency": "rcf"[k % 3]} for k, c in enumerate(category_ids)]
    results = [
        {"image_id": i, "category_id": c, "bbox": b, "score": int(rng.integers(0, 20)) / 20} for i, c, b in detections
    ]
    order = rng.permutation(len(results)).tolist()
    return {"images": images, "annotations": annotations, "categories": categories}, [results[k] for k in order]
