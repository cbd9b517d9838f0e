"""A training step with 1203 categories against the same step with 80, CPU.

    python -m benchmarks.categories [-f exps/lvis/yolox_s_eqfl.py] [-b 2] [--size 320] [--grow]

Network, criterion, backward and optimiser on made-up images. "ours" has 1203 categories, the alternative 80, so the
ratio is below 1: 0.8 means that 1203 categories take 1.25 times as long. --grow prints steps of 80 to 5000 categories
instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from benchmarks.train_step import make_step
from yolox_lt.exp import get_exp


def step_of(file: str, categories: int, batch: int, size: int) -> Callable[[], Tensor]:
    exp = get_exp(file)
    exp.num_classes = categories
    return make_step(exp, batch, (size, size), None, torch.device("cpu"))


def both_finite(a: Tensor, b: Tensor) -> None:
    assert torch.isfinite(torch.stack([a, b])).all()


def main() -> None:
    options = parser(__doc__, repeats=11)
    options.add_argument("-f", "--exp-file", default="exps/lvis/yolox_s_eqfl.py", help="%(default)s")
    options.add_argument("-b", "--batch-size", type=int, default=2, help="%(default)s")
    options.add_argument("--size", type=int, default=320, help="pixels of a side (%(default)s)")
    options.add_argument("--grow", action="store_true", help="print how the step grows instead")
    args = options.parse_args()
    begin(args)
    if args.grow:
        print_header("categories", "ms a step", "peak MiB")
        for categories in (80, 300, 1203, 5000):
            result = measure(step_of(args.exp_file, categories, args.batch_size, args.size), args.repeats)
            print(table_row(categories, f"{result.median * 1e3:.0f}", f"{result.peak:.0f}"), flush=True)
        return
    many, few = (step_of(args.exp_file, c, args.batch_size, args.size) for c in (1203, 80))
    print_header()
    name = f"step, {args.batch_size} x {args.size} px, 1203 categories / 80"
    compare(name, many, few, both_finite, args.repeats, reach=0.8)


if __name__ == "__main__":
    main()
