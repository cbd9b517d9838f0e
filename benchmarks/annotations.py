"""Reading an annotation file of LVIS's size, and sharing it between loader workers.

    python -m benchmarks.annotations [--repeats 3] [--grow]

First reading (the cache is removed before), later reading (from the cache), and plain readers of the same file, each in
a process of its own: seconds, and peak memory of that process, imports (torch 0.7 GiB) and mapped files included. The
columns are compared with a plain json reading. Then eight workers are forked which read boxes and labels of every
image; their memory is the proportional set size (what processes share counts once), summed over all of them and their
parent. --grow prints how reading grows with images and categories instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import lvis_like
from benchmarks.fresh import Fresh, fresh
from benchmarks.paired import print_header, table_row
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.index_cache import cache_path

WORKERS, EPOCHS = 8, 2
SLOW = 20.0  # seconds, a reader that takes longer is measured once


def ours(path: Path) -> int:
    return len(AnnotationIndex.load(path).boxes)


def with_json(path: Path) -> int:
    with path.open("rb") as file:
        return len(json.load(file)["annotations"])


def with_lvis(path: Path) -> int:
    from lvis import LVIS

    logging.disable()
    return len(LVIS(str(path)).anns)


def with_hotcoco(path: Path) -> int:
    import hotcoco

    return len(hotcoco.LVIS(str(path)).get_ann_ids())


def check_equal(path: Path) -> int:
    """Compare every column with a plain reading of the file; returns the number of boxes. Runs in its own process."""
    index = AnnotationIndex.load(path)
    content = json.loads(path.read_bytes())
    images = sorted(content["images"], key=lambda image: image["id"])
    categories = sorted(content["categories"], key=lambda category: category["id"])
    position = {image["id"]: i for i, image in enumerate(images)}
    label = {category["id"]: c for c, category in enumerate(categories)}
    boxes = sorted(content["annotations"], key=lambda box: position[box["image_id"]])  # stable: file order inside

    def equal(column: Any, plain: Any) -> None:
        np.testing.assert_array_equal(column, np.array(plain))

    equal(index.image_ids, [image["id"] for image in images])
    equal(index.sizes, [(image["height"], image["width"]) for image in images])
    equal(index.category_ids, list(label))
    equal(index.frequencies, [category["frequency"] for category in categories])
    equal(np.repeat(index.image_ids, np.diff(index.box_offsets)), [box["image_id"] for box in boxes])
    equal(index.boxes, [box["bbox"] for box in boxes])
    equal(index.labels, [label[box["category_id"]] for box in boxes])
    equal(index.areas, [box["area"] for box in boxes])
    equal(index.annotation_ids, [box["id"] for box in boxes])
    for labels, offsets, key in (
        (index.negative_labels, index.negative_offsets, "neg_category_ids"),
        (index.not_exhaustive_labels, index.not_exhaustive_offsets, "not_exhaustive_category_ids"),
    ):
        equal(labels, [label[c] for image in images for c in image[key]])
        equal(np.diff(offsets), [len(image[key]) for image in images])
    names = [index.file_name(i) for i in range(len(index))]
    assert names == ["/".join(image["coco_url"].split("/")[-2:]) for image in images]
    pairs = {(box["image_id"], box["category_id"]) for box in boxes}
    equal(index.image_counts, np.bincount([label[c] for _, c in pairs], minlength=len(label)))
    return len(boxes)


def table(path: Path, repeats: int) -> None:
    readers: dict[str, Callable[[Path], int]] = {"first time": ours, "from the cache": ours, "json": with_json}
    libraries: dict[str, Callable[[Path], int]] = {"lvis": with_lvis, "hotcoco": with_hotcoco}
    for library, reader in libraries.items():
        if importlib.util.find_spec(library):
            readers[library] = reader
        else:
            print(f"{library}: not available")
    runs: dict[str, list[Fresh]] = {name: [] for name in readers}
    for _ in range(repeats):  # in turn, so that a busy machine slows all
        for name, reader in readers.items():
            if runs[name] and runs[name][0].seconds > SLOW:
                continue
            if name == "first time":
                cache_path(path).unlink(missing_ok=True)
            runs[name].append(fresh(reader, path))
    reach = {"first time": (10.0, 3.0), "from the cache": (0.1, None)}
    print_header("reader", "seconds (least to most)", "cpu seconds", "peak GiB", "reach")
    for name, measured in runs.items():
        assert len({run.result for run in measured}) == 1
        seconds = [run.seconds for run in measured]
        peak = max(run.peak for run in measured)
        most, memory = reach.get(name, (None, None))
        met = most is None or (statistics.median(seconds) <= most and (memory is None or peak <= memory))
        verdict = (
            "" if most is None else f"{most:g} s{f', {memory:g} GiB' if memory else ''} {'yes' if met else 'MISSED'}"
        )
        times = f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
        cpu = f"{statistics.median(run.cpu for run in measured):.3f}"
        print(table_row(name, times, cpu, f"{peak:.2f}", verdict), flush=True)
    print(f"\n{path.stat().st_size / 1e9:.2f} GB of json, {cache_path(path).stat().st_size / 1e6:.1f} MB of cache")


def proportional(process: int | str | None = "self") -> tuple[float, float]:
    """Proportional set size and private memory of a process in MiB (Linux)."""
    fields = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    kib = {name: int(value.split()[0]) for name, value in fields.items()}
    return kib["Pss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024


def worker(index: AnnotationIndex, barrier: Any) -> None:
    """Read boxes and labels of every image, again and again; stand still while the parent looks at the memory."""
    for _ in range(EPOCHS):
        total = 0
        for i in range(len(index)):
            total += len(index.boxes_of(i)) + len(index.labels_of(i))
        assert total == 2 * int(index.usable.sum())
        barrier.wait()
        barrier.wait()


def workers(path: Path) -> None:
    """PSS after every epoch. Run in a process of its own: the parent's memory counts."""
    index = AnnotationIndex.load(path)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(WORKERS + 1)
    processes = [context.Process(target=worker, args=(index, barrier)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    totals = []
    print_header("epochs", f"PSS of {WORKERS} workers and parent, MiB", "private memory of a worker, MiB")
    for epoch in range(EPOCHS):
        barrier.wait()
        measured = [proportional(process.pid) for process in processes]
        totals.append(sum(pss for pss, _ in measured) + proportional()[0])
        private = [own for _, own in measured]
        print(table_row(epoch + 1, f"{totals[-1]:.0f}", f"{min(private):.1f} to {max(private):.1f}"), flush=True)
        barrier.wait()
    for process in processes:
        process.join()
    growth = totals[-1] / totals[0] - 1
    met = totals[-1] < 1.5 * 1024 and growth < 0.05
    print(f"\nreach: 1.5 GiB, not growing: {totals[-1] / 1024:.2f} GiB, {growth:+.1%}, {'yes' if met else 'MISSED'}")


def grow(folder: Path) -> None:
    full = lvis_like.TRAIN_IMAGES
    cases = [(full // 4, 1203), (full // 2, 1203), (full, 1203), (2 * full, 1203)]
    cases += [(full, 80), (full, 300), (full, 5000)]
    columns = (
        "images",
        "categories",
        "boxes",
        "first time, s",
        "cpu",
        "us a box",
        "peak GiB",
        "from the cache, s",
        "cache MB",
    )
    print_header(*columns)
    for images, categories in cases:
        path = folder / f"{images}_{categories}.json"
        lvis_like.write(path, lvis_like.make(images, categories))
        first, later = fresh(ours, path), fresh(ours, path)
        cells = [
            f"{first.seconds:.2f}",
            f"{first.cpu:.2f}",
            f"{first.cpu / first.result * 1e6:.2f}",
            f"{first.peak:.2f}",
        ]
        cells += [f"{later.seconds:.4f}", f"{cache_path(path).stat().st_size / 1e6:.0f}"]
        print(table_row(f"{images:,}", categories, f"{first.result:,}", *cells), flush=True)
        path.unlink()
        cache_path(path).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of every reader (%(default)s)")
    parser.add_argument("--images", type=int, default=lvis_like.TRAIN_IMAGES, help="images of the file (%(default)s)")
    parser.add_argument("--grow", action="store_true", help="print how reading grows instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="annotations_") as name:
        folder = Path(name)
        if args.grow:
            grow(folder)
            return
        path = folder / "lvis_like_train.json"
        lvis_like.write(path, lvis_like.make(args.images))
        table(path, args.repeats)
        print(f"columns equal to a plain json reading: {fresh(check_equal, path).result:,} boxes\n")
        fresh(workers, path)


if __name__ == "__main__":
    main()
