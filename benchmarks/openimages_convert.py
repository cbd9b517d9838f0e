"""Converting annotations of the size of Open Images Challenge 2019's training split: seconds and peak memory.

    python -m benchmarks.openimages_convert [--rows N] [--images N] [--columns v4|challenge] [--jpegs N]

Random boxes in the csv layout of the challenge, about a gigabyte in a temporary folder, are converted by
tools/convert_dataset.py in a process of its own, whose memory includes what it imports (torch). The images' sizes come
from a csv file there; how fast they are read from JPEG headers is measured on some files of its own, and the share of
all images is reckoned from that.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from yolox_lt.data.image_size import jpeg_sizes

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = 500
HEADERS = {
    "challenge": "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf",
    "v4": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
}
ROWS_AT_ONCE = 100_000


def mid(category: int) -> str:
    return f"/m/0{category:05x}"


def image_id(image: int) -> str:
    return f"{image * 0x9E3779B97F4A7C15 % 2**64:016x}"


def write_files(folder: Path, rows: int, images: int, kind: str) -> None:
    """classes.csv, hierarchy.json, boxes.csv (ordered by image, as published), labels.csv, sizes.csv."""
    rng = np.random.default_rng(0)
    (folder / "classes.csv").write_text("".join(f"{mid(c)},Category {c}\n" for c in range(CATEGORIES)))
    tree = [{"LabelName": mid(c), "Subcategory": [{"LabelName": mid(c + 1)}]} for c in range(0, 200, 2)]
    (folder / "hierarchy.json").write_text(json.dumps({"LabelName": "/m/root", "Subcategory": tree}))
    names = sorted(image_id(image) for image in range(images))
    owner = np.sort(np.concatenate([np.arange(images), rng.integers(0, images, rows - images)]))
    share = 1 / np.arange(1, CATEGORIES + 1)
    category = rng.choice(CATEGORIES, rows, p=share / share.sum())
    with (folder / "boxes.csv").open("w") as file:
        file.write(HEADERS[kind] + "\n")
        for start in range(0, rows, ROWS_AT_ONCE):
            edges = np.sort(rng.random((min(ROWS_AT_ONCE, rows - start), 2, 2)), axis=2)  # [n, axis, low or high]
            group = rng.random(len(edges)) < 0.06
            for i, ((x1, x2), (y1, y2)) in enumerate(edges.tolist()):
                image, label = names[owner[start + i]], mid(category[start + i])
                box = f"{x1:.6f},{x2:.6f},{y1:.6f},{y2:.6f}"
                if kind == "v4":
                    file.write(f"{image},xclick,{label},1,{box},0,0,{group[i]:d},0,0\n")
                else:
                    file.write(f"{image},{label},{box},{group[i]:d}\n")
    with (folder / "labels.csv").open("w") as file:
        file.write("ImageID,Source,LabelName,Confidence\n")
        for name, (a, b, c) in zip(names, rng.integers(0, CATEGORIES, (images, 3)).tolist()):
            file.write(
                f"{name},verification,{mid(a)},1\n{name},verification,{mid(b)},0\n{name},verification,{mid(c)},0\n"
            )
    with (folder / "sizes.csv").open("w") as file:
        file.write("ImageID,Width,Height\n")
        file.writelines(f"{name},1024,{height}\n" for name, height in zip(names, rng.integers(400, 1024, images)))


def convert(folder: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds, peak memory in GB of the converter."""
    files = [f"--{name}={name}.csv" for name in ("boxes", "labels", "classes", "sizes")]
    command = [sys.executable, str(ROOT / "tools/convert_dataset.py"), "openimages", *files]
    command += ["--hierarchy=hierarchy.json", "--images=train", "--out=train.index"]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the only child
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def headers(folder: Path, count: int) -> tuple[float, float]:
    """Seconds and processor seconds to read the sizes of `count` JPEGs of 1024 x 768 from the page cache."""
    picture = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    content = cv2.imencode(".jpg", cv2.resize(picture, (1024, 768)))[1].tobytes()
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        (folder / name).write_bytes(content)
    start, used = time.perf_counter(), time.process_time()
    assert (jpeg_sizes(folder, names) == (768, 1024)).all()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_195_144)
    parser.add_argument("--images", type=int, default=1_743_042)
    parser.add_argument("--columns", choices=HEADERS, default="v4")
    parser.add_argument("--jpegs", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, args.rows, args.images, args.columns)
        size = (folder / "boxes.csv").stat().st_size / 1e9
        print(f"{args.rows:,} boxes, {args.images:,} images, {size:.2f} GB, {os.cpu_count()} cores", flush=True)
        seconds, used, memory = convert(folder)
        written = (folder / "train.index").stat().st_size / 1e9
        print(f"converted in {seconds:.1f} s ({used:.1f} s of processor time), peak {memory:.2f} GB, {written:.2f} GB")
        for path in folder.iterdir():
            path.unlink()
        seconds, used = headers(folder, args.jpegs)
        share = args.images / args.jpegs
        print(
            f"{args.jpegs:,} JPEG headers in {seconds:.2f} s ({used:.2f} s of processor time): for all images "
            f"{seconds * share:.0f} s ({used * share:.0f} s)"
        )


if __name__ == "__main__":
    main()
