"""One update of the averaged weights against a loop over the state dict.

python -m benchmarks.ema [--name yolox-s] [--device cuda]
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.paired import begin, compare, parser, print_header
from yolox_lt.exp import get_exp
from yolox_lt.optim.ema import ModelEMA


class Loop:
    """ema = d ema + (1 - d) model, one entry of the state dict after the other."""

    def __init__(self, model: nn.Module, decay_of: ModelEMA) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay_of = decay_of
        self.next = decay_of.next

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        d = self.decay_of.decay_at(self.next)
        self.next += 1
        state = model.state_dict()
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                value *= d
                value += (1 - d) * state[name].detach()


def main() -> None:
    options = parser(__doc__, repeats=41, device=True)
    options.add_argument("--name", default="yolox-s", help="%(default)s")
    args = options.parse_args()
    device = begin(args)
    model = get_exp(name=args.name).get_model().to(device)
    ours = ModelEMA(model)
    loop = Loop(model, ours)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)

    def same(_: None, __: None) -> None:
        theirs = loop.model.state_dict()
        for name, value in ours.model.state_dict().items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-7)

    print_header()
    name = f"averaging, {args.name} / loop"
    compare(name, lambda: ours.update(model), lambda: loop.update(model), same, args.repeats, 3, device)


if __name__ == "__main__":
    main()
