"""One image through an exported ONNX file in onnxruntime, against PyTorch eager with BatchNorm folded; on the CPU.

    python -m benchmarks.export_latency [--threads 1] [--repeats 9] [--categories 1203] [--size 640]

YOLOX-S* (two anchors) with random weights whose logits are spread like a trained detector's. Both sides have the same
number of threads; eager runs in inference mode with channels-last weights. The first row is the network to raw
predictions, the second ends in 300 detections: decoding and NMS inside the file, `Predictor` behind eager.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import torch

from benchmarks.paired import begin, compare, parser, print_header
from yolox_lt.exp import YOLOXStarExp
from yolox_lt.export import ExportedModel, ExportOptions, export, load_onnx
from yolox_lt.export.compare import MAX_SCORE, detection_difference, random_images
from yolox_lt.export.runtime import finish
from yolox_lt.inference import LoadedDetector
from yolox_lt.models import Detector, fuse_conv_bn
from yolox_lt.types import Batch, Detections, Predictions, Priors


def star_exp(categories: int, size: int) -> YOLOXStarExp:
    """YOLOX-S* on square inputs."""
    exp = YOLOXStarExp()
    exp.num_classes, exp.depth, exp.width, exp.test_size = categories, 0.33, 0.5, (size, size)
    return exp


def spread_model(exp: YOLOXStarExp, batch: Batch) -> Detector:
    """Random weights with category logits of -6 +- 1.5 on the images, and boxes and qualities that differ."""
    model = exp.get_model().eval()
    with torch.no_grad():
        predictions, _ = model(batch.images)
        for part, values, deviation, bias in (
            ("cls_preds", predictions.cls_logits, 1.5, -6.0),
            ("obj_preds", predictions.quality_logits, 0.5, 0.0),
            ("reg_preds", predictions.box_deltas, 0.3, 0.0),
        ):
            for conv in getattr(model.head, part):
                conv.weight.mul_(deviation / values.std())
                conv.bias.fill_(bias)
    return model


class Eager:
    """The PyTorch model with BatchNorm folded and what follows it."""

    def __init__(self, detector: LoadedDetector, batch: Batch) -> None:
        assert isinstance(detector.model, Detector)
        self.model = fuse_conv_bn(detector.model).to(memory_format=torch.channels_last)
        self.predictor = detector.exp.get_predictor()
        self.batch = batch

    @torch.inference_mode()
    def predictions(self) -> tuple[Predictions, Priors]:
        return self.model(self.batch.images)

    @torch.inference_mode()
    def detections(self) -> list[Detections]:
        batch, (predictions, priors) = self.batch, self.predictions()
        size = (batch.images.shape[2], batch.images.shape[3])
        sizes = batch.scales, batch.original_sizes, batch.image_sizes
        return self.predictor(predictions, priors, *sizes, size)

    def check_predictions(self, ours: tuple[Predictions, Priors], other: tuple[Predictions, Priors]) -> None:
        torch.testing.assert_close(ours[0].cls_logits, other[0].cls_logits, rtol=0, atol=1e-3)
        torch.testing.assert_close(ours[0].box_deltas, other[0].box_deltas, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours[1].boxes, other[1].boxes, rtol=0, atol=1e-4)

    def check_detections(self, ours: list[Detections], other: list[Detections]) -> None:
        boxes, scores = detection_difference(ours[0], other[0], self.predictor)
        if not (boxes <= 1e-2 and scores <= MAX_SCORE):
            raise AssertionError(f"detections differ by {boxes} px and {scores}")


def exported(detector: LoadedDetector, nms: bool) -> ExportedModel:
    """The detector by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        export(detector, path, ExportOptions(nms=nms))
        return load_onnx(path).model


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--categories", type=int, default=1203, help="(%(default)s)")
    options.add_argument("--size", type=int, default=640, help="side of the input, a multiple of 32 (%(default)s)")
    args = options.parse_args()
    print("python -m benchmarks.export_latency", *sys.argv[1:])
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}", end=", ")
    begin(args)

    exp = star_exp(args.categories, args.size)
    batch = exp.get_collate()([exp.get_eval_transform()(random_images(1)[0])])
    batch.images = batch.images.float()
    detector = LoadedDetector(spread_model(exp, batch), exp, tuple(map(str, range(args.categories))), "cpu")
    eager = Eager(detector, batch)
    raw, whole = exported(detector, nms=False), exported(detector, nms=True)

    def detections() -> list[Detections]:
        return finish(whole.outputs(batch.images), batch, eager.predictor, legacy=False)

    name = f"YOLOX-S*, {args.categories} categories, {args.size} px"
    print_header("what", "onnxruntime", "PyTorch eager", "ratio", "reach", "peak MiB", "eager's")
    compare(f"{name}, network", lambda: raw(batch.images), eager.predictions, eager.check_predictions, args.repeats)
    compare(f"{name}, to detections", detections, eager.detections, eager.check_detections, args.repeats)


if __name__ == "__main__":
    main()
