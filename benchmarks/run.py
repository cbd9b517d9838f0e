"""Run all benchmarks and write docs/performance.md: machine, versions, and for each the command and what it printed.

    python -m benchmarks.run [NAME ...] [--list]

NAME: only these, in place of all; their sections of the page are renewed and the others stay as they are. What needs a
GPU is "not run" where there is none. All of them take about an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
PACKAGES = ("torch", "numpy", "opencv-python", "lvis", "pycocotools", "hotcoco")

INTRODUCTION = """# Performance

Ours against a library or the textbook formulation, in turn in one run, after a check that both give the same. Every
section that ends with its machine is what its command printed; `make bench` writes the page again. Ratios are of one
machine, and these machines are noisy: brackets hold the quartiles, "reach" what was asked for and whether it was met.
"""


@dataclass(frozen=True)
class Benchmark:
    """One section: `name` on the command line, `words` behind `python -m`, a remark that holds for any figures."""

    name: str
    title: str
    words: str
    remark: str = ""
    gpu: bool = False


LOSS = "Forward, backward and the statistic; one logits matrix is 77 MiB in float32."
LOSS_GROWS = (
    "Seconds and memory grow in step with the entries (images x priors x categories); no bend up to 5000 categories. "
    "Scratch space of 4 MiB a thread is all that comes on top of the gradient, and shows with few categories."
)
ATSS_GROWS = (
    "Grows with the objects, less than in step with them. It bends with anchors only where the result, one entry an "
    "anchor, is itself large: at 268,800. Categories cost nothing."
)
SIMOTA_GROWS = (
    "Bends at 300 objects: from there the time rises faster than their number. Categories cost the collecting of the "
    "candidates' logits, less than in step."
)
PREDICT_GROWS = "Bends between 1203 and 5000 categories: the time there rises faster than the matrix."
STEP_GROWS = "Grows less than in step with the categories: 5000 take two to three times the time and memory of 80."
ANNOTATIONS_GROW = "Seconds and memory grow in step with the boxes; the cache is opened, not read. No bend."
EVAL_GROWS = (
    "Grows in step with the detections, memory too. It bends with few categories, where a detection costs up to twice "
    "as much, and slightly at 40,000 images."
)
BENCHMARKS = [
    Benchmark("loss", "EFL and EQFL", "benchmarks.loss", LOSS),
    Benchmark("loss-grow", "EFL and EQFL as work grows", "benchmarks.loss --grow", LOSS_GROWS),
    Benchmark("loss-gpu", "EFL and EQFL on a GPU", "benchmarks.loss --device cuda --batch 8 --compile", gpu=True),
    Benchmark(
        "loss-gpu-bf16", "EFL and EQFL on a GPU, bf16", "benchmarks.loss --device cuda --batch 8 --bf16", gpu=True
    ),
    Benchmark("atss", "ATSS", "benchmarks.atss"),
    Benchmark("atss-grow", "ATSS as work grows", "benchmarks.atss --grow", ATSS_GROWS),
    Benchmark("simota", "SimOTA", "benchmarks.simota"),
    Benchmark("simota-grow", "SimOTA as work grows", "benchmarks.simota --grow", SIMOTA_GROWS),
    Benchmark("predict", "Prediction after the network", "benchmarks.predict"),
    Benchmark("predict-grow", "Prediction as work grows", "benchmarks.predict --grow", PREDICT_GROWS),
    Benchmark("ema", "Averaging the weights", "benchmarks.ema"),
    Benchmark("categories", "A training step with 1203 categories against 80", "benchmarks.categories"),
    Benchmark("categories-grow", "A training step as categories grow", "benchmarks.categories --grow", STEP_GROWS),
    Benchmark("augment", "Training samples with mosaic and mixup", "benchmarks.augment"),
    Benchmark("annotations", "Annotations of LVIS-train size", "benchmarks.annotations"),
    Benchmark("annotations-grow", "Annotations as work grows", "benchmarks.annotations --grow", ANNOTATIONS_GROW),
    Benchmark("lvis-eval", "LVIS evaluation", "benchmarks.lvis_eval"),
    Benchmark("lvis-eval-grow", "LVIS evaluation as work grows", "benchmarks.lvis_eval --grow", EVAL_GROWS),
    Benchmark("startup", "Start of training to the first batch", "benchmarks.startup"),
    Benchmark(
        "startup-1",
        "Start of training to the first batch, one loader process",
        "benchmarks.startup data_num_workers 1",
        "With two cores the four processes above compete with the start itself; one of them leaves it a core.",
    ),
    Benchmark(
        "retinanet",
        "Memory of a RetinaNet training step",
        "benchmarks.retinanet_memory --textbook",
        "Nine anchors a cell, 1203 categories, one image, ResNet-50; peak of the whole process.",
    ),
    Benchmark(
        "two-stage",
        "A step of Faster R-CNN",
        "benchmarks.two_stage_step",
        "1203 categories, one image, ResNet-50; peak of the whole process. classifier: the second training of cRT.",
    ),
    Benchmark(
        "compile",
        "torch.compile of the network (`compile True`)",
        "benchmarks.training -f exps/lvis/yolox_s_eqfl.py -b 1 --size 192 --compile",
    ),
    Benchmark("export", "Exported files", "benchmarks.export_latency"),
    Benchmark("report-page", "Report page", "benchmarks.report_page"),
    Benchmark("openimages", "Converting Open Images", "benchmarks.openimages_convert"),
    Benchmark("training-32", "Training YOLOX-M*, batch 32", "benchmarks.training -b 32", gpu=True),
    Benchmark("training-32-bf16", "Training YOLOX-M*, batch 32, bf16", "benchmarks.training -b 32 --bf16", gpu=True),
    Benchmark("training-64-bf16", "Training YOLOX-M*, batch 64, bf16", "benchmarks.training -b 64 --bf16", gpu=True),
    Benchmark(
        "resnet-gpu",
        "Training R-50, batch 4",
        "benchmarks.train_step -f exps/lvis/efl_r50.py --size 800 1344 -b 4 --iterations 50",
        gpu=True,
    ),
    Benchmark(
        "gpu-check",
        "The first ten minutes with a GPU",
        "benchmarks.gpu_check",
        "Eight parts with a time limit each: kernel, equal steps, speed, host waits, switches, runs, NCCL, overflow.",
        gpu=True,
    ),
]


def machine() -> str:
    """What the figures of a section were measured on, as one line."""
    from benchmarks.paired import processor

    installed = {d.metadata["Name"] for d in metadata.distributions()}
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES if name in installed]
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}"


def section(benchmark: Benchmark, has_gpu: bool) -> str:
    """Run a benchmark; its part of the page.

    Raises:
        SystemExit: the benchmark failed.
    """
    lines = [f"## {benchmark.title}", f"    python -m {benchmark.words}"]
    if benchmark.remark:
        lines.append(benchmark.remark)
    if benchmark.gpu and not has_gpu:
        return "\n\n".join([*lines, "Not run: needs a GPU."])
    done = subprocess.run([sys.executable, "-m", *benchmark.words.split()], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m {benchmark.words} ended with status {done.returncode}:\n{done.stderr}")
    return "\n\n".join([*lines, done.stdout.strip(), f"({machine()})"])


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page by their titles."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].removeprefix("## "): part.strip() for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print names and commands and run nothing")
    args = parser.parse_args()
    if args.list:
        for benchmark in BENCHMARKS:
            print(f"{benchmark.name:<18} python -m {benchmark.words}")
        return
    unknown = set(args.names) - {benchmark.name for benchmark in BENCHMARKS}
    if unknown:
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such benchmark; --list shows all")
    import torch

    for benchmark in BENCHMARKS:
        if not args.names or benchmark.name in args.names:
            print(f"{benchmark.name}: python -m {benchmark.words}", flush=True)
            sections = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
            if benchmark.gpu and not torch.cuda.is_available() and benchmark.title in sections:
                continue  # what a machine with a GPU has printed stays
            text = section(benchmark, torch.cuda.is_available())
            write(sections | {benchmark.title: text})


def write(sections: dict[str, str]) -> None:
    """The page, sections in the order of BENCHMARKS; one that was never run says so."""
    parts = [
        sections.get(b.title, f"## {b.title}\n\n    python -m {b.words}\n\nNot run.").replace("\n\n\n", "\n\n")
        for b in BENCHMARKS
    ]
    PAGE.write_text("\n\n".join([INTRODUCTION.strip(), *parts]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
