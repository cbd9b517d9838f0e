"""The guides: what they tell the user to type works.

A guide's fenced blocks say what is done with them here:

- `bash`: every line is a command of tools/ and is run, in order, with a small network, two iterations and one process.
  A web page is asked for its model and stopped. yolox_s.pth is a file with the official names and random weights;
- `bash parse`: for machines and files that are not here. torchrun's own parser and the tools' parsers have to take
  every option, the experiment has to exist and to know every override;
- `bash settings`: variables of the shell; bash has to accept its syntax, and the package has to know the first;
- `bash shown`: a command that needs more than is here, a module of benchmarks/ that has to be there;
- `yaml trainjob`: a manifest for Kubernetes: its fields are compared with those of Kubeflow Trainer's TrainJob, and its
  command is treated like those of `bash parse`;
- `bash slurm`: a job script. bash has to accept its syntax, the #SBATCH options are compared with a list of known ones,
  and the command behind srun is treated like those of `bash parse`;
- `python NAME`: is written to the file NAME, which later commands use; `python`: is executed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch.distributed.run import get_args_parser

from tests.tiny import TINY, tiny_data
from yolox_lt.commands import common
from yolox_lt.data.frequency import class_balanced_factors, image_category_pairs, repeat_factors
from yolox_lt.data.glyphs.make import train_plan
from yolox_lt.data.glyphs.spec import glyph_spec, glyph_tail
from yolox_lt.exp import get_exp
from yolox_lt.report.data.summary import expected_draws
from yolox_lt.train.callbacks.report import ReportCallback

pytestmark = pytest.mark.xdist_group("guides")

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs" / "guides"
NAMES = sorted(path.stem for path in GUIDES.glob("*.md"))
SMALL = {
    "width": 0.125,
    "input_size": "(64,64)",
    "test_size": "(64,64)",
    "multiscale_range": 0,
    "max_iter": 2,
    "max_epoch": 1,
    "warmup_epochs": 0,
    "no_aug_epochs": 0,
    "data_num_workers": 0,
}
SBATCH = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal"}


class Block(NamedTuple):
    """A fenced block: the words behind the fence, its lines."""

    info: str
    text: str

    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]


def blocks(guide: str) -> list[Block]:
    text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(.+)\n((?:.*\n)*?)```$", text, re.MULTILINE)]


class Checkout:
    """A checkout with data: exps/, datasets/birds/ as own_data.md wants it; commands run in it."""

    def __init__(self, folder: Path, glyphs: Path) -> None:
        self.folder = folder
        self.glyphs = glyphs

    def words(self, command: str) -> tuple[str, list[str]]:
        """(name of the tool, its arguments) of a line "python tools/NAME.py ..."."""
        python, tool, *words = shlex.split(command, comments=True)
        assert (python, Path(tool).parent.as_posix()) == ("python", "tools"), command
        assert (ROOT / tool).is_file(), command
        return Path(tool).stem, words

    def run(self, command: str) -> None:
        """A command in this process, made small."""
        name, words = self.words(command)
        for option, value in (("-d", "1"), ("-b", "4")):
            if option in words:
                words[words.index(option) + 1] = value
        if name in ("train", "eval"):
            words = ["--device", "cpu", *words]
        if "-f" in words:
            settings = dict(SMALL)
            if name == "train" and "-c" in words:
                del settings["width"]  # the weights to start from have the width of the file
            if "glyphs" in words[words.index("-f") + 1]:
                settings |= {"data_dir": self.glyphs, "num_classes": TINY["num_categories"]}
                settings |= {"glyph_image_size": TINY["image_size"], "glyph_train_images": TINY["train_images"]}
                settings |= {"glyph_val_images": TINY["val_images"]}
            words += [str(word) for pair in settings.items() for word in pair]
        if "--data" in words:
            words[words.index("--budget") + 1] = "2it"
            words += ["input_size", "(64,64)", "test_size", "(64,64)", "data_num_workers", "0"]
        if (name, words[0]) == ("demo", "web"):
            return self.serve(words)
        module = importlib.import_module(f"yolox_lt.commands.{name}")
        with pytest.MonkeyPatch.context() as patch:
            if name == "train" and "-expn" in words:  # the other runs have a page, which costs more than they do
                patch.setattr(ReportCallback, "write_report", lambda self: None)
            try:
                common.run(module.main, module.make_parser(), words)
            except SystemExit as end:
                pytest.fail(f"{command}: status {end.code}")

    def serve(self, words: list[str]) -> None:
        """The demo page, on a free port, until it has answered."""
        words[words.index("--port") + 1] = "0"
        command = [sys.executable, str(ROOT / "tools/demo.py"), *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
                address = next(filter(None, found))[0]
                with urllib.request.urlopen(f"{address}/model", timeout=30) as answer:
                    assert len(json.load(answer)["names"]) == TINY["num_categories"]
            finally:
                process.terminate()

    def parse(self, command: str) -> None:
        """The options of a command, and those of torchrun before it."""
        words = shlex.split(command, comments=True)
        if words[0] == "torchrun":
            launcher = get_args_parser().parse_args(words[1:])
            processes = int(launcher.nnodes) * int(launcher.nproc_per_node)
            command = shlex.join(["python", launcher.training_script, *launcher.training_script_args])
            words = launcher.training_script_args
            assert int(words[words.index("-b") + 1]) % processes == 0
        name, words = self.words(command)
        args = importlib.import_module(f"yolox_lt.commands.{name}").make_parser().parse_args(words)
        if getattr(args, "exp_file", None):
            get_exp(args.exp_file).merge(args.opts)

    def job(self, script: str) -> None:
        """A SLURM script."""
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        options = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
        assert {re.fullmatch(r"--([a-z-]+)=\S+", option)[1] for option in options} == SBATCH
        for name in ("MASTER_ADDR", "MASTER_PORT"):  # what the library asks a launcher other than torchrun for
            assert re.search(rf"^export {name}=\S", script, re.MULTILINE)
        (command,) = re.findall(r"^srun [a-z=1 -]*(python .*)$", script, re.MULTILINE)
        self.parse(command)
        assert command.endswith(" auto_resume True")  # the job that is submitted again continues

    def manifest(self, text: str) -> None:
        """A TrainJob."""
        job = yaml.safe_load(text)
        assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
        spec = job["spec"]
        assert set(spec) == {"runtimeRef", "trainer", "podTemplateOverrides"}
        assert spec["runtimeRef"] == {"name": "torch-distributed"}
        trainer = spec["trainer"]
        fields = {"image", "numNodes", "numProcPerNode", "resourcesPerNode", "env", "command", "args"}
        assert set(trainer) == fields
        assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == trainer["numProcPerNode"]
        (override,) = spec["podTemplateOverrides"]
        assert override["targetJobs"] == [{"name": "node"}]
        (container,) = override["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in override["spec"]["volumes"]}
        assert {entry["name"]: entry["value"] for entry in trainer["env"]} == {"YOLOX_DATADIR": mounts["data"]}
        words = [*trainer["command"], *trainer["args"]]
        assert all(isinstance(word, str) for word in words)
        assert words[words.index("output_dir") + 1] == mounts["runs"]
        # What the runtime tells torchrun by variables.
        told = ["--nnodes", str(trainer["numNodes"]), "--nproc-per-node", str(trainer["numProcPerNode"])]
        self.parse(shlex.join([words[0], *told, *words[1:]]))
        assert words[-2:] == ["auto_resume", "True"]

    def follow(self, guide: str) -> None:
        """Everything that a guide tells one to do."""
        for block in blocks(guide):
            kind, _, rest = block.info.partition(" ")
            if (kind, rest) == ("bash", ""):
                for command in block.commands():
                    self.run(command)
            elif (kind, rest) == ("bash", "parse"):
                for command in block.commands():
                    self.parse(command)
            elif (kind, rest) == ("bash", "slurm"):
                self.job(block.text)
            elif (kind, rest) == ("bash", "settings"):
                subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
                assert re.findall(r"^export (\w+)=\S+$", block.text, re.MULTILINE)[0] == "GLOO_SOCKET_IFNAME"
            elif (kind, rest) == ("bash", "shown"):
                for command in block.commands():
                    module = re.fullmatch(r"python -m (benchmarks\.\w+)", command)[1]
                    assert importlib.util.find_spec(module) is not None
            elif (kind, rest) == ("yaml", "trainjob"):
                self.manifest(block.text)
            elif (kind, rest) == ("python", ""):
                exec(compile(block.text, f"{guide}.md", "exec"), {})
            elif kind == "python":
                Path(rest).write_text(block.text, encoding="utf-8")
            else:
                pytest.fail(f"{guide}.md: a block of kind {block.info!r}, of which nothing is known here")


def write_birds(source: Path, target: Path) -> None:
    """The tiny glyphs as somebody's own data: plain COCO json with file names, all images in one folder."""
    (target / "images").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((source / f"annotations/glyphs_{split}.json").read_text())
        for image in content["images"]:
            name = f"{image['id']:04d}.jpg"
            shutil.copy(source / f"{split}2017" / Path(image.pop("coco_url")).name, target / "images" / name)
            image["file_name"] = name
        (target / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Checkout]:
    """Where own_data.md has been followed to its end: the other guides continue with its run."""
    folder, glyphs = tmp_path_factory.mktemp("checkout"), tiny_data(tmp_path_factory)
    shutil.copytree(ROOT / "exps", folder / "exps")
    write_birds(glyphs, folder / "datasets/birds")
    torch.save({"model": get_exp(name="yolox-s").get_model().state_dict()}, folder / "yolox_s.pth")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror, pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLOX_LT_MIRROR", f"http://127.0.0.1:{mirror.server_port}")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        try:
            made = Checkout(folder, glyphs)
            made.follow("own_data")
            yield made
        finally:
            mirror.shutdown()


def test_own_data__leaves_what_it_says(place):
    run = place.folder / "YOLOX_outputs/birds"
    for path in (
        *(run / name for name in ("best.pth", "latest.pth", "metrics.csv", "report.html")),
        *(run / "pictures" / name for name in ("labels.png", "train_batch_0.jpg", "val_predictions.jpg")),
        *(run / "pictures/train_batch.jpg", place.folder / "per_category.csv", place.folder / "found/0361.jpg"),
    ):
        assert path.stat().st_size > 0, path
    assert len((run / "metrics.csv").read_text().splitlines()) == 2  # resuming a finished run adds nothing
    assert json.loads((place.folder / "birds.json").read_text())["experiment"] == "birds"
    assert [f["source"] for f in json.loads((place.folder / "found.json").read_text())] == [
        "datasets/birds/images/0361.jpg"
    ]


@pytest.mark.parametrize("guide", [name for name in NAMES if name != "own_data"])
def test_guide__every_command_works(place, guide):
    place.follow(guide)


def test_report__of_two_runs(place):
    if not (place.folder / "birds_and_qfl.html").is_file():
        place.follow("report")
    page = (place.folder / "birds_and_qfl.html").read_text(encoding="utf-8")
    assert "birds_qfl" in page


@pytest.mark.parametrize("guide", NAMES)
def test_guide__links_lead_somewhere_and_no_command_escapes(guide):
    text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (GUIDES / target).is_file(), target
    outside = re.sub(r"^```.+\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE)
    assert not re.search(r"^ *(python|torchrun|srun|\$) ", outside, re.MULTILINE)


def test_choosing__gains_are_those_of_the_demo_s_data():
    """The table of samplers, from the plan of the glyph set that make demo writes."""
    spec = glyph_spec({})
    tail = glyph_tail(spec)
    plan, groups = train_plan(spec, tail.image_counts), np.array(tail.groups)
    image, category, images = image_category_pairs(plan)
    ceil = repeat_factors(plan, 0.1)
    by_instances = repeat_factors(plan, 0.1, "stochastic", by_instances=True)
    cases = {
        "`sampler uniform`": (np.ones(images), 0.0, False),
        "`repeat_rounding ceil`, no mosaic (as it is trained)": (ceil, 0.0, False),
        "`repeat_rounding stochastic`, no mosaic": (repeat_factors(plan, 0.1, "stochastic"), 0.0, False),
        "`repeat_rounding ceil`, `mosaic_prob 1` with mixup": (ceil, 4.0, False),
        "the same with `partners same`": (ceil, 4.0, True),
        "`sampler instance_repeat_factor`, `repeat_rounding stochastic`, no mosaic": (by_instances, 0.0, False),
        "`sampler class_balanced`, no mosaic": (class_balanced_factors(plan), 0.0, False),
    }
    text = (GUIDES / "choosing.md").read_text(encoding="utf-8")
    for setting, (factors, partners, same) in cases.items():
        draws = expected_draws(image, category, len(groups), factors, 1, partners, same)
        uniform = expected_draws(image, category, len(groups), np.ones(images), 1, partners)
        gains = [f"{draws[groups == g].sum() / uniform[groups == g].sum():.2f}" for g in "rcf"]
        assert f"| {setting} | {' | '.join(gains)} |\n" in text
