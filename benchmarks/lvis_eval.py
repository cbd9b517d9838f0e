"""LVIS evaluation of 300 detections an image and 1203 categories: ours, the LVIS API, hotcoco.

    python -m benchmarks.lvis_eval [--images 1000 5000 19809] [--repeats 3] [--grow]

Every evaluation is a process of its own, in turn with the others. Annotations are read and detections are in memory
(our arrays, the LVIS API's list of dicts, hotcoco's matrix) when the time begins; it ends with the metrics. Peak memory
is that of the whole process. "difference" is the largest one to ours of the 13 metrics and, for the LVIS API, of
precision and recall of every category. The LVIS API runs up to 5000 images; beyond it needs more than 8 GB. --grow
prints how ours grows with images, detections and categories instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import lvis_like
from benchmarks.fresh import Fresh, fresh
from benchmarks.paired import print_header, table_row
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate import DetectionArrays, evaluate_lvis

REACH = 30.0  # times as fast as the LVIS API
REACH_FULL = (15.0, 3.0)  # seconds and GiB of LVIS's whole validation set
MOST_IMAGES = {"lvis": 5000}  # beyond this it needs more than 8 GB


@dataclass
class Scored:
    """Seconds by the clock and by the CPU, the 13 metrics, NaN where undefined.

    precision: float64 [C, 10, 101], recall [C, 4] averaged over thresholds, per category; None if not compared.
    """

    seconds: float
    cpu: float
    metrics: dict[str, float]
    precision: np.ndarray | None = None
    recall: np.ndarray | None = None


def scored(call: Callable[[], Any]) -> tuple[Any, float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - start, time.process_time() - cpu


def read(folder: Path) -> DetectionArrays:
    return DetectionArrays(
        *(np.load(folder / f"{name}.npy") for name in ("image_ids", "category_ids", "boxes", "scores"))
    )


def with_ours(folder: Path, max_dets: int = 300) -> Scored:
    index, detections = AnnotationIndex.load(folder / "val.json"), read(folder)
    report, seconds, cpu = scored(lambda: evaluate_lvis(index, detections, max_dets))
    recall = np.stack([report.per_category[name] for name in ("AR", "ARs", "ARm", "ARl")], axis=1)
    return Scored(seconds, cpu, report.metrics, report.precision, recall)


def with_lvis(folder: Path) -> Scored:
    np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 was written for numpy before 1.24
    from lvis import LVIS, LVISEval, LVISResults

    annotations, columns = LVIS(str(folder / "val.json")), read(folder)
    entries = [
        {"image_id": i, "category_id": c, "bbox": b, "score": s}
        for i, c, b, s in zip(*(column.tolist() for column in vars(columns).values()))
    ]

    def evaluate() -> Any:
        evaluator = LVISEval(annotations, LVISResults(annotations, entries, max_dets=300), "bbox")
        evaluator.run()
        return evaluator

    evaluator, seconds, cpu = scored(evaluate)
    results = evaluator.get_results()
    metrics = {name.partition("@")[0]: undefined(value) for name, value in results.items()}
    precision = undefined(evaluator.eval["precision"][:, :, :, 0]).transpose(2, 0, 1)  # [T, R, C] -> [C, T, R]
    recall = undefined(evaluator.eval["recall"]).mean(axis=0)  # [T, C, A] -> [C, A]
    return Scored(seconds, cpu, metrics, precision, recall)


def with_hotcoco(folder: Path) -> Scored:
    import hotcoco

    columns = read(folder)
    annotations = hotcoco.LVIS(str(folder / "val.json"))
    matrix = np.column_stack([columns.image_ids, columns.boxes, columns.scores, columns.category_ids])

    def evaluate() -> Any:
        evaluator = hotcoco.LVISEval(annotations, hotcoco.LVISResults(annotations, matrix, max_dets=300), "bbox")
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.run()
        return evaluator

    evaluator, seconds, cpu = scored(evaluate)
    metrics = {name.partition("@")[0]: undefined(value) for name, value in evaluator.get_results().items()}
    return Scored(seconds, cpu, metrics)


def undefined(values: Any) -> Any:
    """-1, which stands for nothing to average, as NaN."""
    return np.where(np.asarray(values) == -1, np.nan, values)[()]


def difference(a: Scored, b: Scored) -> float:
    """Largest one of the metrics, and of precision and recall where both have them; inf if one alone is undefined."""
    pairs = [(np.array(list(a.metrics.values())), np.array([b.metrics[name] for name in a.metrics]))]
    if b.precision is not None and b.recall is not None:
        assert a.precision is not None
        assert a.recall is not None
        pairs += [(a.precision, b.precision), (a.recall, b.recall)]
    if any((np.isnan(x) != np.isnan(y)).any() for x, y in pairs):
        return float("inf")
    return max(float(np.nanmax(np.abs(x - y))) for x, y in pairs)


def write(folder: Path, images: int, categories: int = lvis_like.CATEGORIES, per_image: int = 300) -> None:
    """Annotations and detections, and the annotations' cache."""
    made = lvis_like.make(images, categories)
    lvis_like.write(folder / "val.json", made, polygons=False)
    for name, column in vars(lvis_like.detections(made, per_image)).items():
        np.save(folder / name, column)
    AnnotationIndex.load(folder / "val.json")


def compare(folder: Path, images: int, evaluators: dict[str, Callable[[Path], Scored]], repeats: int) -> None:
    """Rows of the table for one number of images."""
    write(folder, images)
    runs: dict[str, list[Fresh]] = {
        name: [] for name in evaluators if images <= MOST_IMAGES.get(name, lvis_like.TRAIN_IMAGES)
    }
    for _ in range(repeats):
        for name, measured in runs.items():
            measured.append(fresh(evaluators[name], folder))
    ours = [run.result.seconds for run in runs["ours"]]
    for name, measured in runs.items():
        seconds = [run.result.seconds for run in measured]
        ratio = statistics.median(b / a for a, b in zip(ours, seconds))
        peak = max(run.peak for run in measured)
        reach = ""
        if name == "lvis":
            reach = f"{REACH:g} times {'yes' if ratio >= REACH else 'MISSED'}"
        elif name == "ours" and images == lvis_like.VAL_IMAGES:
            met = statistics.median(seconds) <= REACH_FULL[0] and peak <= REACH_FULL[1]
            reach = f"{REACH_FULL[0]:g} s, {REACH_FULL[1]:g} GiB {'yes' if met else 'MISSED'}"
        cells = [
            f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})",
            f"{statistics.median(run.result.cpu for run in measured):.2f}",
            f"{peak:.2f}",
            f"{ratio:.1f}",
            f"{difference(runs['ours'][0].result, measured[0].result):.1e}",
            reach,
        ]
        print(table_row(f"{images:,}", name, *cells), flush=True)


def grow(folder: Path) -> None:
    columns = (
        "images",
        "detections an image",
        "categories",
        "detections",
        "seconds",
        "cpu",
        "ns a detection",
        "peak GiB",
    )
    print_header(*columns)
    full = lvis_like.VAL_IMAGES
    cases = [(1000, 300, 1203), (5000, 300, 1203), (full, 300, 1203), (2 * full, 300, 1203)]
    cases += [(full, 50, 1203), (full, 100, 1203), (5000, 1000, 1203), (5000, 2000, 1203)]
    cases += [(full, 300, categories) for categories in (80, 300, 5000)]
    cases += [(5000, 300, 3)]  # many detections and boxes of one category in an image: pairs, not detections, count
    for images, per_image, categories in cases:
        write(folder, images, categories, per_image)
        run = fresh(with_ours, folder, per_image)
        count = images * per_image
        cells = [f"{run.result.seconds:.2f}", f"{run.result.cpu:.2f}", f"{run.result.cpu / count * 1e9:.0f}"]
        print(table_row(f"{images:,}", per_image, categories, f"{count:,}", *cells, f"{run.peak:.2f}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, lvis_like.VAL_IMAGES])
    parser.add_argument("--repeats", type=int, default=3, help="runs of every evaluator (%(default)s)")
    parser.add_argument("--grow", action="store_true", help="print how ours grows instead")
    args = parser.parse_args()
    evaluators: dict[str, Callable[[Path], Scored]] = {"ours": with_ours}
    libraries: dict[str, Callable[[Path], Scored]] = {"lvis": with_lvis, "hotcoco": with_hotcoco}
    for name, evaluator in libraries.items():
        if importlib.util.find_spec(name):
            evaluators[name] = evaluator
        else:
            print(f"{name}: not available")
    with tempfile.TemporaryDirectory(prefix="lvis_eval_") as name:
        if args.grow:
            grow(Path(name))
            return
        print_header(
            "images", "evaluator", "seconds (least to most)", "cpu", "peak GiB", "ratio", "difference", "reach"
        )
        for images in args.images:
            compare(Path(name), images, evaluators, args.repeats)


if __name__ == "__main__":
    main()
