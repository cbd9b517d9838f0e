"""Mosaic and mixup samples per second on one core, and how far their pixels lie from those of the released order.

    python -m benchmarks.augment [--images FOLDER] [--size 640] [--samples 300]

Ours against two formulations of the released order (resize four, paste on a canvas of twice the size, warp, resize the
partner, blend, colour, flip, letterbox), which take turns in one process with the same draws:
  plain      the same order with our helpers: integer blend, colours by one table, uint8 [H, W, 3] as it is;
  published  the arithmetic of the published code: a resize even to the same size, float32 blend, colours channel by
             channel (official: int16 sums; released models: tables), channels first (official: float32).
The images lie decoded in memory at sizes common in COCO; reading is not measured. OpenCV runs on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import cv2
import numpy as np

from tests.data.released_order import ReleasedOrder
from yolox_lt.data.augment import mosaic, recipe
from yolox_lt.data.augment import transforms as augment
from yolox_lt.data.augment.recipe import OFFICIAL_RECIPE, RELEASED_RECIPE, Augment, AugmentRecipe
from yolox_lt.data.augment.transforms import Sample
from yolox_lt.data.glyphs.make import write_glyphs
from yolox_lt.data.loader import init_worker

COCO_SIZES = [(480, 640), (480, 640), (427, 640), (640, 480), (640, 427), (375, 500)]
"""Common (height, width) of COCO's images."""

BOXES = 7
"""Per image, COCO's mean."""

Make = Callable[[int, np.random.Generator], Sample]


class Published(ReleasedOrder):
    """The released order with the arithmetic of the published code."""

    def resize(self, image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
        fitted = augment.fitting(image.shape[:2], size)
        return cv2.resize(image, fitted.size[::-1], interpolation=cv2.INTER_LINEAR), fitted.scale

    def blend(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (0.5 * one.astype(np.float32) + 0.5 * other.astype(np.float32)).astype(np.uint8)

    def colour(self, sample: Sample, rng: np.random.Generator) -> Sample:
        strength = rng.uniform(-1.0, 1.0, 3) * np.array(self.recipe.hsv_strength)
        hsv = cv2.cvtColor(sample.image, cv2.COLOR_BGR2HSV)
        if self.recipe.hsv_kind == "gain":
            tables = [np.arange(256) * gain for gain in 1.0 + strength]
            tables = [tables[0] % 180, *(np.clip(table, 0, 255) for table in tables[1:])]
            planes = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(cv2.split(hsv), tables)]
            changed = cv2.merge(planes)
        else:
            shifts = (strength * rng.integers(0, 2, 3)).astype(np.int16)
            sums = hsv.astype(np.int16)
            sums[..., 0] = (sums[..., 0] + shifts[0]) % 180
            sums[..., 1] = np.clip(sums[..., 1] + shifts[1], 0, 255)
            sums[..., 2] = np.clip(sums[..., 2] + shifts[2], 0, 255)
            changed = sums.astype(np.uint8)
        return Sample(cv2.cvtColor(changed, cv2.COLOR_HSV2BGR), sample.boxes, sample.labels)

    def channels_first(self, sample: Sample) -> Sample:
        dtype = np.float32 if self.recipe.hsv_kind == "shift" else np.uint8
        image = np.ascontiguousarray(sample.image.transpose(2, 0, 1), dtype=dtype)  # [H, W, 3] -> [3, H, W]
        return Sample(image, sample.boxes, sample.labels)


def load(folder: Path, count: int = 24) -> list[Sample]:
    """Images of a folder at the sizes of COCO_SIZES in turn, each with BOXES made-up boxes."""
    rng, samples = np.random.default_rng(0), []
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[:count]):
        height, width = COCO_SIZES[number % len(COCO_SIZES)]
        image = np.asarray(cv2.imread(str(path)))
        image = cv2.resize(image if height < width else np.rot90(image), (width, height), interpolation=cv2.INTER_AREA)
        corner, side = rng.uniform(0, 0.7, (BOXES, 2)), rng.uniform(0.05, 0.3, (BOXES, 2))
        boxes = np.concatenate([corner, corner + side], axis=1) * [width, height, width, height]
        samples.append(Sample(image, boxes.astype(np.float32), np.arange(BOXES)))
    if len(samples) < len(COCO_SIZES):
        raise SystemExit(
            f"{folder} has {len(samples)} jpg or png images; give a folder with at least {len(COCO_SIZES)}."
        )
    return samples


def makers(settings: AugmentRecipe, size: tuple[int, int], samples: list[Sample]) -> dict[str, Make]:
    """From a number and a generator to a use_mosaic sample, by each of the three ways."""
    ours, plain, published = Augment(settings, size), ReleasedOrder(settings, size), Published(settings, size)

    def partner(rng: np.random.Generator) -> int:
        return int(rng.integers(len(samples)))

    def make(way: Augment | ReleasedOrder, index: int, rng: np.random.Generator) -> Sample:
        return way(index % len(samples), rng, True, samples.__getitem__, partner)

    return {
        "ours": lambda index, rng: make(ours, index, rng),
        "plain": lambda index, rng: make(plain, index, rng),
        "published": lambda index, rng: published.channels_first(make(published, index, rng)),
    }


def check(ways: dict[str, Make], count: int) -> str:
    """Boxes and labels bit by bit, and the pixels' distance to the plain formulation."""
    distances = []
    for number in range(count):
        ours, plain = (ways[name](number, np.random.default_rng([1, number])) for name in ("ours", "plain"))
        np.testing.assert_array_equal(ours.boxes, plain.boxes)
        np.testing.assert_array_equal(ours.labels, plain.labels)
        distances.append(cv2.absdiff(ours.image, plain.image).ravel())
    means = [float(distance.mean()) for distance in distances]
    far = [float((distance > 8).mean()) for distance in distances]
    return (
        f"boxes of {count} samples identical; pixels differ by {statistics.mean(means):.2f} grey levels in the mean "
        f"({max(means):.2f} in the worst sample), {100 * statistics.mean(far):.2f} % of them by more than 8"
    )


def measure(ways: dict[str, Make], count: int) -> dict[str, list[float]]:
    """Seconds of processor time for each sample; the ways take turns, in an order that rotates."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(-20, count):  # the first twenty warm up
        for name in names[number % 3 :] + names[: number % 3]:
            rng = np.random.default_rng([0, number + 20])
            start = time.thread_time()
            ways[name](number, rng)
            if number >= 0:
                seconds[name].append(time.thread_time() - start)
    return seconds


@contextlib.contextmanager
def stages(names: dict[str, tuple[ModuleType, str]]) -> Iterator[dict[str, float]]:
    """Processor seconds spent in functions, by stage, while the context lasts."""
    spent = dict.fromkeys(names, 0.0)

    def timed(stage: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            start = time.thread_time()
            result = function(*args, **kwargs)
            spent[stage] += time.thread_time() - start
            return result

        return run

    with contextlib.ExitStack() as patches:
        for stage, (module, name) in names.items():
            patches.enter_context(mock.patch.object(module, name, timed(stage, getattr(module, name))))
        yield spent


def profile(make: Make, count: int) -> str:
    """Mean milliseconds of every stage of our way."""
    names = {
        "mosaic, boxes": (recipe, "mosaic"),
        "mixup, boxes": (recipe, "mixup"),
        "draw": (recipe, "draw"),
        "  tiles warped": (mosaic, "paste"),
        "  partner resized": (mosaic, "render_overlay"),
        "colour": (augment, "_change_hsv"),
    }
    start = time.thread_time()
    with stages(names) as spent:
        for number in range(count):
            make(number, np.random.default_rng([0, number]))
    spent["everything"] = time.thread_time() - start
    return "\n".join(f"    {stage:18} {1000 * seconds / count:6.2f} ms" for stage, seconds in spent.items())


def spread(values: list[float], digits: int = 2) -> str:
    """Median (lower quartile to upper quartile)."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of jpg or png images (made-up glyph images)")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--samples", type=int, default=300)
    args = parser.parse_args()
    init_worker(0)  # as in a loader process
    with tempfile.TemporaryDirectory(prefix="augment_") as name:
        if args.images is None:
            write_glyphs(Path(name), train_images=600, val_images=40, image_size=(480, 640))
        samples = load(args.images or Path(name))
    print(
        f"{len(samples)} images, input {args.size}, OpenCV {cv2.__version__}, numpy {np.__version__}, one thread, ",
        end="",
    )
    print(f"{platform.machine()}; milliseconds of processor time, median (quartiles) of {args.samples} samples")
    for title, settings in (("official YOLOX", OFFICIAL_RECIPE), ("released models", RELEASED_RECIPE)):
        ways = makers(settings, (args.size, args.size), samples)
        print(f"{title}: {check(ways, 60)}")
        seconds = measure(ways, args.samples)
        for name, values in seconds.items():
            times = [1000 * value for value in values]
            line = f"  {name:10} {spread(times)} ms, {1000 / statistics.median(times):.0f} images/s"
            if name != "ours":
                ratios = [other / own for own, other in zip(seconds["ours"], values)]
                line += f"; ours is {spread(ratios)} times as fast"
            print(line)
        print(profile(ways["ours"], args.samples))


if __name__ == "__main__":
    main()
