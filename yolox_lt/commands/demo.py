"""Detect objects in images, a video or a camera's stream and save what was found; needs no display."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import cv2
import numpy as np
from loguru import logger

import yolox_lt
from yolox_lt.commands import common, web
from yolox_lt.data.image_files import IMAGE_SUFFIXES
from yolox_lt.distributed.processes import pick_device
from yolox_lt.errors import UserError
from yolox_lt.images import read_image
from yolox_lt.inference import DEFAULT_CONF, LoadedDetector


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "kind", choices=("image", "video", "webcam", "web"), help="what to look at; web: a page to drop images on"
    )
    parser.add_argument(
        "--path", nargs="+", help="image files and folders of images, or video files and addresses of streams"
    )
    parser.add_argument("--camid", type=int, default=0, help="number of the camera")
    parser.add_argument("-c", "--ckpt", help="checkpoint, exported .onnx or .torchscript file, or name as for -n")
    parser.add_argument(
        "-n", "--name", help="official weights instead of -c: yolox-nano (here already), yolox-tiny, s, m, l, x"
    )
    common.add_exp_of_checkpoint(parser)
    parser.add_argument(
        "--conf",
        type=confidence,
        metavar="SCORE",
        help="lowest score that is shown; auto: the threshold of every category in the checkpoint; if not given auto "
        "where it holds some, else 0.3",
    )
    parser.add_argument(
        "--nms", type=common.share, default=0.45, help="overlap above which the weaker of two boxes goes"
    )
    parser.add_argument("--all-labels", action="store_true", help="let several categories share a place")
    parser.add_argument("--tsize", type=common.side, help="side of a square test size; the checkpoint's if not given")
    parser.add_argument("--save", metavar="DIR", default="demo_output", help="folder for images or the video")
    parser.add_argument("--json", metavar="FILE", help="write every detection as json")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("--host", default="127.0.0.1", help="address that the web page is offered on")
    parser.add_argument("--port", type=int, default=8000, help="port of the web page")
    parser.add_argument("--frames", type=int, help="stop a video or camera after so many frames")
    return parser


def confidence(text: str) -> float | str:
    """A number in [0, 1] or "auto", for argparse."""
    return text if text == "auto" else common.share(text)


def image_files(paths: list[str]) -> list[Path]:
    """The images themselves, for a folder its images in the order of their names."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"{path}: no image in this folder; give files of {', '.join(sorted(IMAGE_SUFFIXES))}")
        files += found
    return files


def frames(source: str | int, limit: int | None) -> Iterator[np.ndarray]:
    """Frames of a video file or camera."""
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise UserError(f"{source}: cannot be opened as a video; check the path, the address or --camid")
    count = 0
    try:
        while limit is None or count < limit:
            ok, frame = capture.read()
            if not ok:
                break
            count += 1
            yield frame
    finally:
        capture.release()
    if count == 0:
        raise UserError(f"{source}: no frame could be read; give a video that OpenCV can decode")


def run_images(detector: LoadedDetector, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Detect in image files and draw into `folder`; a record for each file."""
    records = []
    files = image_files(args.path)
    targets = image_targets(files, folder)
    for path, target in zip(files, targets):
        image = read_image(path)
        start = time.perf_counter()
        detections = detector(image, args.conf, class_agnostic=not args.all_labels)
        milliseconds = 1000 * (time.perf_counter() - start)
        if not cv2.imwrite(str(target), detections.draw(image)):
            raise UserError(f"{target}: image could not be written; check the folder given with --save")
        logger.info(f"{path}: {len(detections)} objects in {milliseconds:.0f} ms -> {target}")
        records.append({"source": str(path), "detections": detections.to_list()})
    return records


def image_targets(files: list[Path], folder: Path) -> list[Path]:
    """Where the drawn images go: stem.jpg; equal stems get as much of their paths before them as keeps them apart, and
    their suffix.

    Raises:
        UserError: one would overwrite an input.
    """
    sources, targets = {path.resolve() for path in files}, []
    for path in files:
        others = [other.resolve() for other in files if other.stem == path.stem and other.resolve() != path.resolve()]
        parts = path.resolve().parts[1:-1]  # folders, from the root
        depth = next((n for n in range(1, len(parts)) if all(o.parts[1:-1][-n:] != parts[-n:] for o in others)), 1)
        name = "_".join((*parts[-depth:], path.stem, path.suffix[1:])) if others else path.stem
        target = folder / f"{name}.jpg"
        if target.exists() and target.resolve() in sources:
            raise UserError(f"{target}: would overwrite an input image; give another folder with --save")
        targets.append(target)
    return targets


def run_streams(detector: LoadedDetector, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Detect in videos, streams or a camera and write a video of each into `folder`; a record for each frame.

    Raises:
        UserError: a video that is there already would be overwritten.
    """
    sources: list[str | int] = list(args.path) if args.kind == "video" else [args.camid]
    targets = [folder / ("webcam.mp4" if isinstance(source, int) else video_name(source)) for source in sources]
    for target in targets:
        if target.exists() and args.kind == "video":
            raise UserError(f"{target}: is there already and would be overwritten; give another folder with --save")
        if targets.count(target) > 1:
            raise UserError(f"{target}: two of the videos would get this name; give them one after the other")
    return [record for source, target in zip(sources, targets) for record in run_stream(detector, args, source, target)]


def video_name(source: str) -> str:
    """Name of the drawn video: stem.mp4 of a file, the host of an address."""
    return f"{urlparse(source).hostname or 'stream'}.mp4" if is_address(source) else f"{Path(source).stem}.mp4"


def is_address(path: str) -> bool:
    """Whether OpenCV is to open an address, such as rtsp://host/stream, and no file."""
    return "://" in path


def run_stream(
    detector: LoadedDetector, args: argparse.Namespace, source: str | int, target: Path
) -> list[dict[str, Any]]:
    """Detect in one video, stream or camera and write `target`; a record for each frame."""
    rate = cv2.VideoCapture(source).get(cv2.CAP_PROP_FPS) or 25.0
    writer, records = None, []
    try:
        for number, frame in enumerate(frames(source, args.frames)):
            detections = detector(frame, args.conf, class_agnostic=not args.all_labels)
            drawn = detections.draw(frame)
            if writer is None:
                size = (drawn.shape[1], drawn.shape[0])
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{target}: video could not be written; check the folder given with --save")
            writer.write(drawn)
            records.append({"source": f"{source}#{number}", "detections": detections.to_list()})
    except KeyboardInterrupt:
        logger.info("stopped; what was recorded is kept")
    finally:
        if writer is not None:
            writer.release()
    logger.info(f"{source}: {len(records)} frames -> {target}")
    return records


def main(args: argparse.Namespace) -> None:
    """Load the detector and show what it finds."""
    if (args.ckpt is None) == (args.name is None):
        raise UserError("give a detector: either -c CHECKPOINT or -n NAME, for example -n yolox-nano")
    if args.kind in ("image", "video") and args.path is None:
        raise UserError(f"{args.kind}: give the file or folder with --path")
    for path in args.path or []:
        if not is_address(path) and not Path(path).exists():
            raise UserError(f"{path}: not found; check --path")
    detector = yolox_lt.load(args.ckpt or args.name, pick_device(args.device, 0), args.exp_file)
    detector.exp.nmsthre = args.nms
    if args.tsize is not None:
        detector.exp.test_size = (args.tsize, args.tsize)
    if args.kind == "web":
        web.serve(detector, args.host, args.port)
        return
    if args.conf is None:
        args.conf = DEFAULT_CONF if detector.thresholds is None else "auto"
    limits = detector.limits(args.conf)
    # Below --conf nothing is shown, so nothing below it needs to pass NMS either.
    detector.exp.test_conf = args.conf if limits is None else float(limits.nan_to_num(1.0).min())
    folder = Path(args.save)
    folder.mkdir(parents=True, exist_ok=True)
    records = run_images(detector, args, folder) if args.kind == "image" else run_streams(detector, args, folder)
    if args.json:
        Path(args.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        logger.info(f"detections written to {args.json}")
