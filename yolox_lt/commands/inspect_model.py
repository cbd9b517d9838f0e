"""Parameters and floating-point operations of an experiment's model: inspect_model -f EXP [num_classes 1203]"""

from __future__ import annotations

import argparse

from yolox_lt.commands import common
from yolox_lt.exp import get_exp
from yolox_lt.models.complexity import model_info


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    common.add_exp(parser)
    common.add_overrides(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Print parameters and operations of a model, part by part."""
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    model = exp.get_model()
    height, width = exp.test_size
    print(f"{exp.exp_name}: {model_info(model, exp.test_size)} at {height}x{width}, {exp.num_classes:,} categories")
    for name, part in model.named_children():
        total = sum(p.numel() for p in part.parameters())
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        print(f"  {name:<10} {total / 1e6:8.3f}M parameters, {trained / 1e6:8.3f}M of them trained")
