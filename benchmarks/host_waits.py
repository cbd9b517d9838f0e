"""Places of a training step where the host would wait for a GPU, counted on a CPU.

    python -m benchmarks.host_waits

Counted is what cannot be answered before the device has computed it: numbers taken to Python (item, tolist, bool),
and results whose size depends on values (nonzero, indexing with a mask, bincount, ...); and tensors made from Python
numbers straight on the device, which are copied from memory that is not page-locked. What torch does inside counts for
the line of this project that calls it. The loss is computed as on a GPU, by Triton's interpreter. On top of what is
counted comes one wait of the training, for the losses, after the backward pass has been launched.
"""

from __future__ import annotations

import collections
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = Path(__file__).resolve().parents[1] / "yolox_lt"
SIZED_BY_VALUES = {"nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive"}
NUMBERS = {"_local_scalar_dense", "equal", "is_nonzero"}
ON_CPUS_ALONE = ("losses/focal.py: and not -2 <=", "losses/triton_kernel.py")
"""A check that is made on a CPU alone, and what Triton's interpreter does."""


def place() -> str:
    """File and line of the innermost call in this package, without its folder."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(str(PACKAGE)):
            return f"{Path(frame.filename).relative_to(PACKAGE)}: {frame.line}"
    return "elsewhere"


class HostWaits(TorchDispatchMode):
    """Counts by place while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.places: collections.Counter[str] = collections.Counter()
        self.calls = Calls(self)

    def note(self) -> None:
        """One wait here."""
        where = place()
        if not where.startswith(ON_CPUS_ALONE):
            self.places[where] += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        unsized = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in SIZED_BY_VALUES | NUMBERS or masks or unsized:
            self.note()
        return function(*args, **(kwargs or {}))

    def __enter__(self) -> HostWaits:
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.calls.__exit__(*error)


class Calls(TorchFunctionMode):
    """Counts what reaches no kernel on a CPU: `tolist`, and tensors from Python numbers with a device."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        made = function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        made = made and not isinstance(args[0], torch.Tensor)
        if made or function in (torch.Tensor.tolist, torch.Tensor.new_tensor):
            self.waits.note()
        return function(*args, **kwargs)


def count(call: Callable[[], object]) -> collections.Counter[str]:
    """Waits of a call by place."""
    with HostWaits() as waits:
        call()
    return waits.places


def main() -> None:
    """One step of each assigner, tiny."""
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are defined
    from benchmarks.gpu.steps import experiment, make_steps
    from yolox_lt.losses import kernel
    from yolox_lt.losses.gpu_pass import kernel_pass

    kernel.block_pass = kernel_pass
    small = {"num_classes": 30}
    yolox = {"width": 0.125, "depth": 0.33, **small}
    resnet = {"resnet_depth": 18, "fpn_channels": 32, "backbone_weights": None, **small}
    for file, settings, size in (
        ("lvis/yolox_m_eqfl.py", yolox, (64, 64)),
        ("lvis/yolox_m.py", yolox, (64, 64)),
        ("lvis/efl_r50.py", resnet, (32, 32)),
        ("lvis/retinanet_r50_focal.py", resnet, (32, 32)),
        ("lvis/paa_r50_focal.py", resnet, (32, 32)),
    ):
        steps = make_steps(experiment(file, **settings), torch.device("cpu"), 2, size)
        steps()
        places = count(steps)
        print(f"{file}, two images: {sum(places.values())}")
        for where, number in places.most_common():
            print(f"  {number} x {where}")


if __name__ == "__main__":
    sys.exit(main())
