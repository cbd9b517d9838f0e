"""Glyphs as they are drawn, chosen and counted; what is written to disk is in test_glyphs.py."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolox_lt.data.glyphs import alphabet
from yolox_lt.data.glyphs import counts as counts_module
from yolox_lt.data.glyphs.alphabet import ROTATIONS, choose_glyphs, glyph_bitmap, open_face, shape_vector
from yolox_lt.data.glyphs.drawing import MASK_THRESHOLD, MAX_ROTATION, paint, render_image, turned_glyph
from yolox_lt.data.glyphs.make import sample_negatives
from yolox_lt.data.glyphs.spec import GlyphSpec, glyph_tail
from yolox_lt.errors import UserError

TABLE = Path(__file__).parent.parent / "golden" / "lvis_v1_categories.json"


def bitmap_of(character: str, face: str = "sans") -> np.ndarray:
    return glyph_bitmap(open_face(face, 120), character)


# -- what is drawn


@pytest.mark.parametrize(("character", "holes"), [("O", 1), ("8", 2), ("B", 2), ("A", 1), ("5", 0)])
@pytest.mark.parametrize("size", [24.0, 60.0])
def test_turned_glyph__holes(character: str, holes: int, size: float) -> None:
    mask = np.pad(turned_glyph(bitmap_of(character), size, 13.0) >= MASK_THRESHOLD, 1)
    parts = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 1  # one of them lies outside
    assert parts == holes + 1
    if character == "O":
        assert not mask[mask.shape[0] // 2, mask.shape[1] // 2]


@pytest.mark.parametrize("size", [14.0, 31.5, 60.0, 150.0])
def test_turned_glyph__longer_side_is_size(size: float) -> None:
    upright = turned_glyph(bitmap_of("E"), size, 0.0)
    assert abs(np.flatnonzero((upright >= MASK_THRESHOLD).any(1)).size - size) <= 1
    bar = np.full((100, 50), 255, np.uint8)
    height, width = turned_glyph(bar, size, 20.0).shape
    sine, cosine = np.sin(np.radians(20)), np.cos(np.radians(20))
    assert abs(height - size * (cosine + 0.5 * sine)) <= 1 + size / 60
    assert abs(width - size * (0.5 * cosine + sine)) <= 1 + size / 60


def test_draw_image__boxes_are_tight_and_inside() -> None:
    bitmaps = [bitmap_of(character) for character in "O8AQ"]
    for seed in range(20):
        categories = [0, 1, 2, 3, 3, 0]
        image, drawn = render_image(np.random.default_rng(seed), bitmaps, categories, (97, 131), (10, 45))
        assert image.shape == (97, 131, 3)
        assert image.dtype == np.uint8
        assert [glyph.category for glyph in drawn] == categories
        for glyph in drawn:
            # Painted white on black: the hull of what is brighter than half must be the box.
            canvas = np.zeros_like(image)
            paint(canvas, glyph.coverage, glyph.left, glyph.top, np.full(3, 255.0))
            mask = (canvas[..., 0] >= 128).astype(np.uint8)
            assert glyph.box == cv2.boundingRect(mask)
            assert glyph.area == mask.sum()
            x, y, width, height = glyph.box
            assert min(x, y) >= 0
            assert x + width <= 131
            assert y + height <= 97
            assert 10 * 0.9 <= max(width, height) <= 45 * 1.3


def test_draw_image__glyph_stands_out() -> None:
    # Medians, because noise, distractors and a bar touch a part of the pixels.
    bitmaps = [bitmap_of("X")]
    for seed in range(10):
        image, (glyph,) = render_image(np.random.default_rng(seed), bitmaps, [0], (128, 128), (40, 60))
        height, width = glyph.coverage.shape
        region = image[glyph.top : glyph.top + height, glyph.left : glyph.left + width]
        inside = np.median(region[glyph.coverage == 255], axis=0)
        outside = np.median(region[glyph.coverage == 0], axis=0)
        assert abs((inside - outside) @ [0.114, 0.587, 0.299]) > 40


def test_draw_image__no_objects() -> None:
    image, drawn = render_image(np.random.default_rng(0), [bitmap_of("O")], [], (64, 51), (8, 20))
    assert image.shape == (64, 51, 3)
    assert drawn == []


def test_draw_image__crowd_overlaps_little() -> None:
    bitmaps = [bitmap_of("H")]
    for seed in range(10):
        _, drawn = render_image(np.random.default_rng(seed), bitmaps, [0] * 8, (128, 128), (14, 60))
        covered = np.zeros((128, 128), int)
        for glyph in drawn:
            x, y, width, height = (int(value) for value in glyph.box)
            covered[y : y + height, x : x + width] += 1
        assert (covered > 1).sum() < 0.15 * (covered > 0).sum()


# -- which glyphs


def test_choose_glyphs__1203_differ() -> None:
    chosen, similarity = choose_glyphs(1203)
    fonts = {face: open_face(face, 64) for face in ("sans", "serif", "mono")}
    bitmaps = [glyph_bitmap(fonts[glyph.face], glyph.character) for glyph in chosen]
    assert len({glyph.name for glyph in chosen}) == 1203
    assert len({(bitmap.shape, bitmap.tobytes()) for bitmap in bitmaps}) == 1203
    shapes = np.stack([shape_vector(bitmap, 0.0) for bitmap in bitmaps])
    np.testing.assert_allclose(similarity, shapes @ shapes.T, atol=1e-5)
    assert (similarity - 2 * np.eye(1203)).max() <= 0.95
    assert max(abs(angle) for angle in ROTATIONS) == MAX_ROTATION


def test_choose_glyphs__names_and_twins() -> None:
    chosen, _ = choose_glyphs(150)
    names = [glyph.name for glyph in chosen]
    assert names[:2] == ["latin_capital_letter_o-sans", "digit_zero-sans"]
    assert "latin_small_letter_a-sans" in names
    for twin in (
        "latin_small_letter_o",
        "latin_small_letter_x",
        "greek_capital_letter_alpha",
        "cyrillic_capital_letter_a",
    ):
        assert f"{twin}-sans" not in names


def test_choose_glyphs__too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    few = list(itertools.islice(alphabet.candidates(), 40))
    monkeypatch.setattr(alphabet, "candidates", lambda: iter(few))
    with pytest.raises(UserError, match=r"num_categories is 41, .* ask for at most \d\d"):
        choose_glyphs(41)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_split_look_alikes__demo_pairs_in_different_groups(seed: int) -> None:
    chosen, similarity = choose_glyphs(30)
    groups = glyph_tail(GlyphSpec()).groups
    slots = counts_module.split_look_alikes(np.random.default_rng(seed), similarity, groups)
    assert sorted(slots) == list(range(30))
    group = {glyph.character: groups[slot] for glyph, slot in zip(chosen, slots)}
    for pair in ("S5", "EF", "B8", "OD", "GC", "Z2"):
        assert {group[pair[0]], group[pair[1]]} == {"f", "r"}


def test_split_look_alikes__by_hand() -> None:
    similarity = np.zeros((5, 5))
    similarity[1, 4] = similarity[4, 1] = 0.9  # the closest pair; 4 is then taken, so 4-3 cannot be one
    similarity[3, 4] = similarity[4, 3] = 0.8
    similarity[0, 3] = similarity[3, 0] = 0.5
    groups = ["f", "f", "c", "r", "r"]
    for seed in range(10):
        slots = counts_module.split_look_alikes(np.random.default_rng(seed), similarity, groups)
        assert slots[2] == 2
        assert {groups[slots[1]], groups[slots[4]]} == {"f", "r"}
        assert {groups[slots[0]], groups[slots[3]]} == {"f", "r"}


# -- how often


def test_zipf_counts__by_hand() -> None:
    # 3 rare: 10 * 0.3^(0, 1/2, 1); 4 common: 100 * 0.11^(0, 1/3, 2/3, 1). 1,000 images of 4 objects hold 2,000 pairs,
    # of which 1,800 are left; the first is cut to 700, the other two share 1,100 as 1/2 : 1/3.
    counts = counts_module.zipf_counts(10, 1000, 4.0)
    np.testing.assert_array_equal(counts[3:], [100, 48, 23, 11, 10, 5, 3])
    np.testing.assert_allclose(counts[:3], [700, 660, 440], atol=1)


@pytest.mark.parametrize("number", [3, 4, 30, 90])
def test_zipf_counts__groups_and_minimum(number: int) -> None:
    counts = counts_module.zipf_counts(number, 2400, 5.5)
    groups = Counter(counts_module.frequency_group(count) for count in counts.tolist())
    rare = round(0.3 * number)
    assert groups == {"f": rare, "c": number - 2 * rare, "r": rare}
    assert (np.diff(counts) <= 0).all()
    with pytest.raises(UserError, match="ask for at least") as caught:
        counts_module.zipf_counts(number, 100, 5.5)
    least = int(str(caught.value).rstrip(".").split()[-1])
    assert counts_module.zipf_counts(number, least, 5.5).sum() <= 0.5 * 5.5 * least + 1


@pytest.mark.parametrize(("count", "group"), [(1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")])
def test_frequency_group__limits(count: int, group: str) -> None:
    assert counts_module.frequency_group(count) == group


def test_scaled_counts__exact_when_the_images_hold_them() -> None:
    table = np.array([category["image_count"] for category in json.loads(TABLE.read_text())["categories"]])
    counts, chosen = counts_module.scaled_counts(table, 1203, 100_170, 5.5)
    np.testing.assert_array_equal(counts, table[chosen])
    assert sorted(chosen) == list(range(1203))


def test_scaled_counts__by_hand() -> None:
    table = np.array([4, 400, 40, 100, 1])
    counts, chosen = counts_module.scaled_counts(
        table, 3, 100, 4.0
    )  # ranks 0, 2, 4; 280 pairs; at most 70 in one category
    np.testing.assert_array_equal(chosen, [1, 2, 4])
    np.testing.assert_array_equal(counts, [70, 7, 1])


def test_deal_categories__exact_counts() -> None:
    wanted = np.array([30, 1, 12, 0, 40])
    plan = counts_module.deal_categories(np.random.default_rng(0), wanted, 50, (2, 4))
    images = Counter(category for shown in plan for category in set(shown))
    assert [images[category] for category in range(5)] == wanted.tolist()
    assert {len(shown) for shown in plan if shown} == {2, 3, 4}


def test_deal_categories__empty_and_impossible() -> None:
    plan = counts_module.deal_categories(np.random.default_rng(0), np.array([2]), 5, (3, 8))
    assert sorted(len(shown) > 0 for shown in plan) == [False, False, False, True, True]
    with pytest.raises(UserError, match="cannot hold"):
        counts_module.deal_categories(np.random.default_rng(0), np.array([5, 5, 5]), 5, (1, 2))


def test_sample_negatives__absent_and_weighted() -> None:
    rng, weights = np.random.default_rng(0), np.array([1.0, 8.0, 1.0, 1.0, 1.0])
    drawn = Counter(category for _ in range(500) for category in sample_negatives(rng, [3], weights))
    assert drawn[3] == 0
    assert sum(drawn.values()) == 500 * 2  # 30 % of 5
    assert drawn[1] > 450 > 300 > drawn[4] > 100
    assert sample_negatives(rng, [0, 1, 2, 3, 4], weights) == []
