"""evaluate_openimages: cases worked by hand, the protocol in plain loops, hotcoco where it follows the protocol."""

from __future__ import annotations

import math
import warnings
from typing import Any

import hotcoco
import numpy as np
import pytest

from tests.evaluate.openimages_cases import ancestors, plain_openimages, random_openimages
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, Report, evaluate_openimages
from yolox_lt.evaluate.quintiles import CHALLENGE_2019, published_quintiles, quintiles_of

ANIMAL, FISH, FOOD, TUNA, CAR = 1, 2, 3, 4, 5  # a tuna is a fish and food, a fish is an animal
SQUARE, MOVED, FAR = [0, 0, 10, 10], [0, 2, 10, 10], [50, 50, 10, 10]  # IoU of the first two: 8 / 12


def content(*boxes: tuple[int, list[float], bool], **lists: list[int]) -> dict[str, Any]:
    """One image; boxes as (category, box, around a group). Without lists every category counts as verified."""
    parents = {ANIMAL: [], FISH: [ANIMAL], FOOD: [], TUNA: [FISH, FOOD], CAR: []}
    return {
        "images": [{"id": 1, "width": 200, "height": 200, **lists}],
        "categories": [{"id": c, "name": f"c{c}", "parent_ids": above} for c, above in parents.items()],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": c, "bbox": box, "is_group_of": group}
            for k, (c, box, group) in enumerate(boxes)
        ],
    }


def found(category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


def aps(report: Report) -> list[float | None]:
    """AP of the five categories, None without boxes."""
    return [None if math.isnan(value) else value for value in report.per_category["AP"].tolist()]


def test_hierarchy__a_box_counts_once_for_every_ancestor() -> None:
    gt = content((TUNA, SQUARE, False))
    report = evaluate_openimages(gt, [found(TUNA, SQUARE, 0.5)])
    assert report.box_counts.tolist() == [1, 1, 1, 1, 0]
    assert aps(report) == [0, 0, 0, 1, None]  # the detector did not say animal, fish and food
    assert report.metrics["AP"] == report.metrics["AP50"] == 0.25
    # Both parents are reached, the grandparent once although it is above the fish alone.
    report = evaluate_openimages(gt, [found(TUNA, SQUARE, 0.5)], expand_detections=True)
    assert aps(report) == [1, 1, 1, 1, None]
    assert report.status_names() == ["tp"]


def test_expand_detections__is_printed() -> None:
    gt, detections = content((TUNA, SQUARE, False)), [found(TUNA, SQUARE, 0.5), found(TUNA, FAR, 0.5)]
    for switch, text in ((False, "not expanded to ancestors"), (True, "expanded to ancestors")):
        title = evaluate_openimages(gt, detections, expand_detections=switch).table().splitlines()[0]
        assert title == (
            f"Open Images AP at IoU 0.5, up to 2 detections per image, {text}, every category verified in every image, "
            "in percent (1 images, 4 of 5 categories with boxes)"
        )


def test_group__hit_by_three_is_found_once_with_the_best_score() -> None:
    gt = content((CAR, [0, 0, 100, 100], True), (CAR, [150, 150, 10, 10], False))
    detections = [
        found(CAR, [5, 5, 10, 10], 0.2),  # in the group
        found(CAR, [30, 30, 10, 10], 0.9),  # its best
        found(CAR, [95, 0, 10, 10], 0.6),  # exactly half of it inside
        found(CAR, [96, 0, 10, 10], 0.7),  # less than half
        found(CAR, [150, 150, 10, 10], 0.5),
    ]
    report = evaluate_openimages(gt, detections)
    assert report.status_names() == ["ignored", "tp", "ignored", "fp", "tp"]
    # tp 0.9, fp 0.7, tp 0.5: half of the recall with precision 1, half with 2 / 3.
    assert aps(report)[4] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_group__missed_lowers_recall() -> None:
    gt = content((CAR, [0, 0, 100, 100], True), (CAR, [150, 150, 10, 10], False))
    report = evaluate_openimages(gt, [found(CAR, [150, 150, 10, 10], 0.5)])
    assert report.box_counts[4] == 2
    assert aps(report)[4] == 0.5


def test_group__takes_the_second_detection_of_a_box_but_not_its_first() -> None:
    gt = content((CAR, [0, 0, 100, 100], True), (CAR, SQUARE, False))
    report = evaluate_openimages(gt, [found(CAR, SQUARE, 0.9), found(CAR, MOVED, 0.8)])
    assert report.status_names() == ["tp", "tp"]
    assert aps(report)[4] == 1


def test_group__the_one_with_the_larger_share_is_found() -> None:
    gt = content((CAR, [0, 0, 16, 10], True), (CAR, [10, 0, 20, 10], True))
    report = evaluate_openimages(gt, [found(CAR, [10, 0, 10, 10], 0.9), found(CAR, [0, 0, 10, 10], 0.8)])
    assert report.status_names() == ["tp", "tp"]  # share 0.6 and 1: the second group; then the first


def test_box__taken_is_a_false_positive_without_second_choice() -> None:
    gt = content((CAR, SQUARE, False), (CAR, [0, 5, 10, 10], False))
    # Both look at the first box (IoU 1 and 8 / 12; with the second box 5 / 15 and 7 / 13).
    report = evaluate_openimages(gt, [found(CAR, MOVED, 0.8), found(CAR, SQUARE, 0.9)])
    assert report.status_names() == ["fp", "tp"]
    assert aps(report)[4] == 0.5


def test_box__iou_of_exactly_one_half_is_found() -> None:
    report = evaluate_openimages(content((CAR, SQUARE, False)), [found(CAR, [0, 0, 10, 5], 0.8)])
    assert report.status_names() == ["tp"]
    report = evaluate_openimages(content((CAR, SQUARE, False)), [found(CAR, [0, 0, 10, 4.999], 0.8)])
    assert report.status_names() == ["fp"]


def two_images(first: dict[str, list[int]]) -> dict[str, Any]:
    """`content` twice: an image without boxes and with the given lists; one in which every category has a box."""
    gt = content(*((c, SQUARE, False) for c in (ANIMAL, FISH, FOOD, TUNA, CAR)), neg_category_ids=[])
    gt["images"].insert(0, {"id": 0, "width": 200, "height": 200, **first})
    return gt


@pytest.mark.parametrize(
    ("lists", "judged"),
    [
        ({"neg_category_ids": [CAR]}, {CAR}),
        ({"neg_category_ids": [FISH]}, {FISH, TUNA}),  # no fish: no tuna either, but maybe another animal
        ({"neg_category_ids": [ANIMAL]}, {ANIMAL, FISH, TUNA}),
        ({"pos_category_ids": [TUNA]}, {TUNA, FISH, FOOD, ANIMAL}),
        ({"pos_category_ids": [ANIMAL]}, {ANIMAL}),  # maybe a fish, nobody looked
        ({}, set()),
    ],
)
def test_verified__only_such_detections_are_judged(lists: dict[str, list[int]], judged: set[int]) -> None:
    categories = [ANIMAL, FISH, FOOD, TUNA, CAR]
    detections = [{**found(c, FAR, 0.5), "image_id": 0} for c in categories]
    report = evaluate_openimages(two_images(lists), detections)
    assert report.status_names() == ["fp" if c in judged else "dropped" for c in categories]


def test_verified__a_category_with_a_box_is_judged_without_a_label() -> None:
    gt = content((TUNA, SQUARE, False), neg_category_ids=[])
    report = evaluate_openimages(gt, [found(c, FAR, 0.5) for c in (ANIMAL, FISH, FOOD, TUNA, CAR)])
    assert report.status_names() == ["fp", "fp", "fp", "fp", "dropped"]
    assert report.detection_counts.tolist() == [1, 1, 1, 1, 0]


def test_nothing_found__and_boxes_that_cannot_be_found() -> None:
    gt = content((CAR, [5, 5, 0, 5], False), (CAR, [math.nan, 5, 1, 5], False))
    report = evaluate_openimages(gt, [])
    assert report.box_counts.tolist() == [0, 0, 0, 0, 1]  # of no width it counts, of no place it does not
    assert report.metrics["AP"] == 0
    report = evaluate_openimages(gt, [found(CAR, [5, 5, 0, 5], 0.5)])
    assert report.status_names() == ["dropped"]


@pytest.mark.parametrize("seed", range(200))
def test_random_cases__equal_the_protocol_in_plain_loops(seed: int) -> None:
    gt, detections = random_openimages(seed, lists=seed % 4 > 0)
    for expand in (False, True):
        report = evaluate_openimages(gt, detections, expand_detections=expand)
        ap, outcome = plain_openimages(gt, detections, expand)
        expected = [ap[c] for c in report.category_ids.tolist()]
        np.testing.assert_allclose(report.per_category["AP"], expected, rtol=0, atol=1e-12)
        assert report.status_names() == outcome
        assert report.metrics["AP"] == pytest.approx(np.nanmean(expected), abs=1e-12)


# hotcoco lets a detection whose box is taken find another one (17), and of groups that hold a detection alike it takes
# those of the category itself before those of its descendants (24, 46). The protocol has no second choice and no order.
OTHER_RULES = {17, 24, 46}


@pytest.mark.parametrize("seed", sorted(set(range(60)) - OTHER_RULES))
def test_random_cases__equal_hotcoco(seed: int) -> None:
    """Where hotcoco follows the protocol: one parent a category, no lists of verified categories, boxes with area."""
    gt, detections = random_openimages(seed, lists=False)
    for category in gt["categories"]:
        category["parent_ids"] = category["parent_ids"][:1]
    detections = [d for d in detections if d["bbox"][3] > 0]
    parents = {c["id"]: c["parent_ids"][0] for c in gt["categories"] if c["parent_ids"]}
    truth = hotcoco.COCO(gt)
    hierarchy = hotcoco.Hierarchy.from_parent_map(parents)
    reference = hotcoco.COCOeval(truth, truth.load_res(detections), "bbox", oid_style=True, hierarchy=hierarchy)
    with warnings.catch_warnings():  # about the lists
        warnings.simplefilter("ignore")
        reference.run()
    values = reference.get_results(per_class=True)
    report = evaluate_openimages(gt, detections)
    assert report.metrics["AP"] == pytest.approx(values["AP"], abs=1e-12)
    ap = dict(zip(report.category_names, report.per_category["AP"].tolist()))
    compared = {f"AP/{name}": value for name, value in ap.items() if not math.isnan(value)}
    assert len(compared) >= 5
    assert compared == pytest.approx({name: values[name] for name in compared}, abs=1e-12)


def test_curves__their_101_points_follow_the_area() -> None:
    gt, detections = random_openimages(3)
    report = evaluate_openimages(gt, detections)
    points = report.precision[:, 0]  # the mean of 101 points is near the area, which has as many steps as boxes
    assert np.nanmax(np.abs(points.mean(axis=1) - report.per_category["AP"])) < 0.02
    assert np.isnan(report.precision[:, 1:]).all()
    assert (np.diff(points, axis=1)[~np.isnan(points[:, 0])] <= 0).all()


def test_order_of_images__does_not_matter() -> None:
    gt, detections = random_openimages(5)
    report = evaluate_openimages(gt, detections)
    images = [entry["id"] for entry in gt["images"]][::-1]
    turned = sorted(detections, key=lambda d: images.index(d["image_id"]))
    again = evaluate_openimages(gt, turned)
    np.testing.assert_array_equal(again.per_category["AP"], report.per_category["AP"])


def test_arrays_and_index__equal_dicts() -> None:
    gt, detections = random_openimages(7)
    columns = (np.array([d[key] for d in detections]) for key in ("image_id", "category_id", "bbox", "score"))
    report = evaluate_openimages(AnnotationIndex.load(gt), DetectionArrays(*columns))
    assert report.metrics == pytest.approx(evaluate_openimages(gt, detections).metrics, nan_ok=True)


def test_index__ancestors_are_transitive_and_circles_are_refused() -> None:
    gt, _ = random_openimages(11)
    index = AnnotationIndex.load(gt)
    above = ancestors(gt)
    for c, category in enumerate(index.category_ids.tolist()):
        labels = index.ancestor_labels[index.ancestor_offsets[c] : index.ancestor_offsets[c + 1]]
        assert index.category_ids[labels].tolist() == sorted(above[category] - {category})
    gt["categories"] = [{"id": c, "parent_ids": [p]} for c, p in ((1, 2), (2, 3), (3, 1))]
    with pytest.raises(UserError, match=r"category '1' is its own ancestor; a hierarchy must not have circles"):
        AnnotationIndex.load({**gt, "annotations": []})
    gt["categories"] = [{"id": 1, "parent_ids": [8]}]
    with pytest.raises(UserError, match=r"category id 1 has 8 among its parent_ids.*add the category or remove the id"):
        AnnotationIndex.load({**gt, "annotations": []})


def test_quintiles__of_the_challenge() -> None:
    boxes = np.loadtxt(CHALLENGE_2019, np.int64, delimiter=",", skiprows=1, usecols=1)
    assert (len(boxes), boxes.sum()) == (500, 12_195_144)
    groups = quintiles_of(boxes)
    ends = [(boxes[groups == k].max(), boxes[groups == k + 1].min()) for k in range(1, 5)]
    assert ends == [(478, 481), (1069, 1087), (2384, 2388), (7852, 7944)]
    assert np.bincount(groups).tolist() == [0, 100, 100, 100, 100, 100]
    sums = [int(boxes[groups == k].sum()) for k in range(1, 6)]
    assert [round(n / 1000) for n in sums[:4]] == [28, 73, 165, 446]
    assert round(sums[4] / 1e4) == 1148


def test_quintiles__a_number_of_categories_that_five_does_not_divide() -> None:
    assert quintiles_of([9, 1, 4, 4, 0, 7, 8]).tolist() == [5, 1, 2, 3, 1, 3, 4]
    assert quintiles_of([]).tolist() == []


def test_metrics__ap1_to_ap5_by_training_boxes_or_mid() -> None:
    gt = content(*((c, SQUARE, False) for c in (ANIMAL, FISH, CAR)))
    for category in gt["categories"]:
        category["parent_ids"] = []
    detections = [found(FISH, SQUARE, 0.5)]
    report = evaluate_openimages(gt, detections)
    assert all(math.isnan(report.metrics[f"AP{k}"]) for k in range(1, 6))
    assert published_quintiles(AnnotationIndex.load(gt)) is None
    report = evaluate_openimages(gt, detections, train_boxes=[7, 3, 9, 1, 5])
    groups = {name: report.metrics[name] for name in ("AP1", "AP2", "AP3", "AP4", "AP5")}
    nan = math.nan  # tuna (AP1) and food (AP5) have no boxes here
    assert groups == pytest.approx({"AP1": nan, "AP2": 1, "AP3": 0, "AP4": 0, "AP5": nan}, nan_ok=True)
    assert report.per_category["quintile"].tolist() == [4, 2, 5, 1, 3]
    # Infant bed, Rose, Flag, Flashlight, Sea turtle of the challenge: 462, 12053, 29246, 88, 1132 training boxes.
    for category, mid in zip(gt["categories"], ("/m/061hd_", "/m/06m11", "/m/03120", "/m/01kb5b", "/m/0120dh")):
        category["freebase_id"] = mid
    report = evaluate_openimages(gt, detections)
    assert report.per_category["quintile"].tolist() == [1, 5, 5, 1, 3]
    assert report.metrics["AP5"] == 1
    assert report.table().splitlines()[1].split() == ["AP", "AP1", "AP2", "AP3", "AP4", "AP5"]
    assert report.table().splitlines()[2].split() == ["33.3", "0.0", "-", "0.0", "-", "100.0"]
    with pytest.raises(ValueError, match="train_boxes has shape"):
        evaluate_openimages(gt, detections, train_boxes=[1, 2])


def test_metrics__what_is_not_defined_is_nan_and_groups_are_means() -> None:
    gt = content((ANIMAL, SQUARE, False), (CAR, SQUARE, False))
    report = evaluate_openimages(gt, [found(CAR, SQUARE, 0.5)], groups=["r", "r", "r", "r", "f"])
    assert (report.metrics["APr"], report.metrics["APf"]) == (0, 1)
    for name in ("AP75", "APs", "APm", "APl", "APc", "AR", "ARs", "ARm", "ARl"):
        assert math.isnan(report.metrics[name]), name
