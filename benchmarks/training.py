"""Training steps of YOLOX-M* EQFL: ours against the textbook loss with the definition of ATSS, and torch.compile.

    python -m benchmarks.training [-f exps/lvis/yolox_m_eqfl.py] [-b 32] [--size 640] [--bf16] [--compile]

The same network, optimiser and made-up images of twelve objects on the GPU, or on the CPU where there is none. The
textbook's criterion has one-hot targets, sigmoid, power and logarithm under autograd, a second pass for the statistic,
and the assigner that compares all anchors with all objects. --compile compares ours with ours under torch.compile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.atss import definition
from benchmarks.loss import eqfl
from benchmarks.paired import begin, compare, parser, print_header
from benchmarks.train_step import make_step
from yolox_lt.assign import BaseAssigner, Targets
from yolox_lt.criterion import Criterion
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.losses import EqualizedQualityFocalLoss
from yolox_lt.types import Assignment, Predictions, Priors


class Definition(BaseAssigner):
    """ATSS with full tables, image by image."""

    def assign_batch(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> list[Assignment]:
        return definition(priors, targets)


class TextbookEQFL(EqualizedQualityFocalLoss):
    """EQFL term by term; the statistic is taken from autograd's gradient of the logits when it comes by."""

    def forward(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        assert quality is not None
        target = torch.zeros(logits.shape, device=logits.device)
        positive = labels >= 0
        target[positive, labels[positive]] = 1.0

        def observe(gradient: Tensor) -> None:
            absolute = gradient.float().abs()
            self.balance.accumulate((absolute * target).sum(0), (absolute * (1 - target)).sum(0))

        if logits.requires_grad:
            logits.register_hook(observe)
        exponent, _ = self.category_factors()
        return eqfl(logits.float(), target, quality, exponent) / normalizer


def textbook_criterion(exp: DetectorExp) -> Criterion:
    ours = exp.get_criterion()
    assert isinstance(ours, Criterion)
    loss = TextbookEQFL(exp.num_classes, scale=exp.loss_scale)
    return Criterion(Definition(), loss, ours.coder, ours.use_l1)


def same(a: Tensor, b: Tensor) -> None:
    """Losses of as many steps from the same start; steps of the lowest rate hardly part the networks."""
    torch.testing.assert_close(a, b, rtol=2e-2, atol=0)


def main() -> None:
    options = parser(__doc__, repeats=20)
    options.add_argument("-f", "--exp-file", default="exps/lvis/yolox_m_eqfl.py", help="%(default)s")
    options.add_argument("-b", "--batch-size", type=int, default=32, help="%(default)s")
    options.add_argument("--size", type=int, default=640, help="pixels of a side (%(default)s)")
    options.add_argument("--bf16", action="store_true", help="network under bfloat16 autocast")
    options.add_argument("--compile", action="store_true", help="compare with torch.compile of the network instead")
    args = options.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    device = begin(args)
    exp = get_exp(args.exp_file)
    amp = torch.bfloat16 if args.bf16 else None
    shape = args.batch_size, (args.size, args.size), amp, device
    ours = make_step(exp, *shape)
    other = make_step(exp, *shape, compiled=True) if args.compile else make_step(exp, *shape, textbook_criterion(exp))
    print_header()
    what = "compiled" if args.compile else "textbook and definition"
    precision = "bf16" if args.bf16 else "float32"
    name = f"{exp.exp_name}, {args.batch_size} x {args.size} px, {precision} / {what}"
    result = compare(name, ours, other, same, args.repeats, device=device)
    speeds = (args.batch_size / side.median for side in (result.ours, result.other))
    print("\nimages/s: {:.1f} ours, {:.1f} {}".format(*speeds, what))


if __name__ == "__main__":
    main()
