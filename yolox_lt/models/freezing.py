"""Parts of a model that keep their weights: which parameters a name means, and BatchNorm without gradient."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox_lt.errors import UserError

BODIES = ("backbone.backbone.", "backbone.resnet.")
"""Where the parameters of the body are, YOLOX and ResNet; the others of `backbone` are the neck's."""


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names of parameters that `patterns` mean, in their order.

    Args:
        patterns: "backbone" (without the neck), "neck", the name of a part like "head.stems", or with * and ? as in a
            shell.

    Raises:
        UserError: a pattern that means none, with the nearest names.
    """
    names, found = list(names), set()
    for pattern in patterns:
        own = {name for name in names if means(name, pattern, names)}
        if not own:
            parts = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 1)}
            near = difflib.get_close_matches(pattern, sorted(parts | {"backbone", "neck"}), n=3, cutoff=0.3)
            raise UserError(
                f"freeze {pattern!r} means no parameter of this model; the nearest are {', '.join(near or ['head'])}"
            )
        found |= own
    return [name for name in names if name in found]


def means(name: str, pattern: str, names: Iterable[str]) -> bool:
    """Whether a pattern means the parameter `name`, one of `names`."""
    has_body = any(n.startswith(BODIES) for n in names)
    if pattern == "backbone":
        return name.startswith(BODIES if has_body else "backbone.")
    if pattern == "neck":
        return has_body and name.startswith("backbone.") and not name.startswith(BODIES)
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def freeze(model: nn.Module, names: Iterable[str]) -> None:
    """No gradient for the parameters `names`; their BatchNorm layers go to evaluation mode, see `keep_norms_frozen`.

    Raises:
        UserError: nothing is left to be trained.
    """
    frozen = set(names)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("freeze leaves nothing to train; take a part out of it")
    keep_norms_frozen(model)


def keep_norms_frozen(model: nn.Module) -> None:
    """Evaluation mode for every BatchNorm whose parameters need no gradient: its statistics stay."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()
