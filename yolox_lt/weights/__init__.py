"""Weights by name: YOLOX-Nano comes with the package, the other official sizes are downloaded once."""

from yolox_lt.weights.named import find_weights

__all__ = ["find_weights"]
