"""Write a detector as ONNX or TorchScript, and measure how far the file is from the model.

The file takes float32 images [batch, 3, height, width], BGR, values 0 to 255, the image top-left: normalisation is
inside, BatchNorm is folded. Files of ResNet models have a second input, image_sizes int64 [batch, 2], the (height,
width) of each image. Category names, settings, thresholds and anchors are stored in the file as JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yolox_lt
from yolox_lt.commands import common
from yolox_lt.errors import UserError
from yolox_lt.export import ExportOptions, export
from yolox_lt.export.write import FORMATS


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "-c", "--ckpt", required=True, help="checkpoint of a trained detector, or yolox-nano, yolox-tiny, s, m, l, x"
    )
    common.add_exp_of_checkpoint(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write; next to the checkpoint if not given")
    parser.add_argument(
        "--nms",
        action="store_true",
        help="decoding and NMS inside: boxes [B, n, 4] in input pixels, scores [B, n], labels [B, n], count [B], n "
        "being the experiment's max_detections; without: cls_logits, box_deltas, quality_logits. TorchScript with NMS "
        "needs torchvision where it runs",
    )
    parser.add_argument(
        "--no-thresholds",
        action="store_true",
        help="with --nms: leave the thresholds of the categories, if the checkpoint has some, out of the graph",
    )
    parser.add_argument("--batch", default="1", metavar="N", help="images of a batch, or dynamic")
    parser.add_argument("--dynamic-size", action="store_true", help="any height and width that the model takes")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="test size; the checkpoint's if not given"
    )
    parser.add_argument("--opset", type=int, default=17, help="version of ONNX's operators")
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="images to compare on, in addition to random ones"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Export, and print the measured difference."""
    suffix = "onnx" if args.format == "onnx" else "torchscript"
    target = Path(args.output) if args.output is not None else Path(args.ckpt).with_suffix(f".{suffix}")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target}: its folder does not exist; create it or give another file with -o")
    options = ExportOptions(
        format=args.format,
        opset=args.opset,
        batch=batch_size(args.batch),
        test_size=None if args.size is None else tuple(args.size),
        dynamic_size=args.dynamic_size,
        nms=args.nms,
        thresholds=not args.no_thresholds,
    )
    detector = yolox_lt.load(args.ckpt, exp=args.exp_file)
    difference = export(detector, target, options, args.images)
    print(f"largest difference to the PyTorch model: {difference.text()}")
    print(f"{target}: written, {target.stat().st_size / 1e6:.1f} MB")


def batch_size(text: str) -> int | None:
    """A number, or None for "dynamic"."""
    if text == "dynamic":
        return None
    if not text.isdecimal():
        raise UserError(f"--batch {text}: give a number of at least 1, or dynamic")
    return int(text)
