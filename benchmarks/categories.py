"""A training step with 1203 categories against the same step with 80, CPU.

    python -m benchmarks.categories [-f exps/lvis/yolox_s_eqfl.py] [-b 2] [--size 320] [--threads 2] [--grow]

Network, criterion, backward and optimiser on made-up images. The classifier itself has 15 times as many channels; --grow
prints the step for 80, 300, 1203 and 5000 categories, and how much of it are assignment and losses.
"""

from __future__ import annotations

import functools

import torch

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from benchmarks.train_step import make_step
from yolox_lt.exp import get_exp

FEW = 80
MANY = 1203


def main() -> None:
    options = parser(__doc__, repeats=11)
    options.add_argument("-f", "--exp-file", default="exps/lvis/yolox_s_eqfl.py", help="%(default)s")
    options.add_argument("-b", "--batch-size", type=int, default=2, help="%(default)s")
    options.add_argument("--size", type=int, default=320, help="pixels of a side (%(default)s)")
    options.add_argument("--grow", action="store_true", help="print how the step grows instead")
    args = options.parse_args()
    device = begin(args)

    def step(categories: int):
        exp = get_exp(args.exp_file)
        exp.num_classes = categories
        return make_step(exp, args.batch_size, (args.size, args.size), None, device)

    print_header()
    result = compare("x", step(FEW), step(MANY), lambda a, b: None, args.repeats, None, device)


if __name__ == "__main__":
    main()
