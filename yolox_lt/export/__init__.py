"""Detectors as ONNX or TorchScript files, and such files in the place of a checkpoint."""

from yolox_lt.export.runtime import ExportedDetector, ExportedModel, load_onnx, load_torchscript
from yolox_lt.export.write import ExportOptions, export

__all__ = ["ExportOptions", "ExportedDetector", "ExportedModel", "export", "load_onnx", "load_torchscript"]
