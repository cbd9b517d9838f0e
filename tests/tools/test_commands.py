"""yolox-lt, python -m yolox_lt and tools/*.py: one code under three names."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import GOLDEN
from tests.convert.files import official
from yolox_lt.commands import COMMANDS, common, main

ROOT = Path(__file__).resolve().parents[2]


def yolox_lt_module(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "yolox_lt", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def outcome(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str, str]:
    """Status, output and error text of yolox-lt, run in this process."""
    status = 0
    try:
        main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    return status, *capsys.readouterr()


def test_help__lists_the_commands():
    lines = yolox_lt_module("--help").stdout.splitlines()
    assert lines[0] == "usage: yolox-lt COMMAND ..."
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert {"train", "eval", "demo", "convert", "export", "inspect"} <= set(COMMANDS)


def test_help__does_not_wait_for_torch():
    """And so a command can set up OpenMP before torch is loaded."""
    code = "import sys, yolox_lt.commands as c; c.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)


def test_train_eval_demo__start_without_torchvision():
    """It takes as long to load as torch; every rank and every command would wait for it."""
    code = (
        "import sys, yolox_lt.commands.train, yolox_lt.commands.eval, yolox_lt.commands.demo\n"
        "print([name for name in ('torchvision', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_command__is_refused_with_the_list(capsys):
    status, out, error = outcome(capsys, ["trian"])
    assert (status, out) == (2, "")
    assert all(re.search(rf"^  {name} ", error, re.MULTILINE) for name in COMMANDS)
    assert error.splitlines()[-1] == f"error: unknown command 'trian'; choose one of {', '.join(COMMANDS)}"
    status, _, error = outcome(capsys, [])
    assert status == 2
    assert error.splitlines()[-1].startswith("error: no command given; choose one of train")


@pytest.mark.parametrize("name", COMMANDS)
def test_command__has_a_parser_that_shows_its_options(name, capsys):
    module = importlib.import_module(f"yolox_lt.commands.{COMMANDS[name][0]}")
    assert callable(module.main)
    options = {option for action in module.make_parser()._actions for option in action.option_strings}
    status, out, _ = outcome(capsys, [name, "--help"])
    assert status == 0
    assert out.startswith(f"usage: yolox-lt {name} ")
    assert {"--debug", "--help"} <= options
    for option in options:
        assert option in out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("words", [["--help"], ["--no-such-option"]])
def test_tool__says_what_the_command_says(name, words, capsys, monkeypatch):
    """The files in tools/, run as a script, differ in the name of the program alone."""
    monkeypatch.setenv("COLUMNS", "1000")  # no line breaks that depend on the name
    monkeypatch.setattr(sys, "path", list(sys.path))
    script = ROOT / "tools" / f"{COMMANDS[name][0]}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    by_tool = (int(end.value.code or 0), *(text.replace(script.name, "PROGRAM") for text in capsys.readouterr()))
    by_command = outcome(capsys, [name, *words])
    assert by_tool == (by_command[0], *(text.replace(f"yolox-lt {name}", "PROGRAM") for text in by_command[1:]))
    assert by_tool[0] == (0 if words == ["--help"] else 2)


@pytest.mark.parametrize(
    "words",
    [
        ["-expn", "NAME", "output_dir", "Y", "min_lr", "-1e-3"],
        ["output_dir", "Y", "min_lr", "-1e-3", "-expn", "NAME"],
        ["output_dir", "Y", "-expn", "NAME", "min_lr", "-1e-3"],
    ],
)
@pytest.mark.parametrize("name", ["train", "inspect"])
def test_overrides__stand_on_either_side_of_options(name, words):
    parser = importlib.import_module(f"yolox_lt.commands.{COMMANDS[name][0]}").make_parser()
    args = common.parse(parser, ["-f", "X", *words])
    assert (args.exp_file, args.experiment_name) == ("X", "NAME")
    assert args.opts == ["output_dir", "Y", "min_lr", "-1e-3"]


def test_mistyped_option__is_refused_by_name_after_overrides(capsys):
    status, _, error = outcome(capsys, ["train", "-f", "X", "output_dir", "Y", "--bacth-size", "3"])
    assert status == 2
    assert error.splitlines()[-1].startswith("yolox-lt train: error: unrecognized arguments: --bacth-size")


def test_demo__finds_objects_with_the_built_in_weights_and_needs_one_detector(tmp_path, capsys):
    photo = str(GOLDEN / "coco_images/000000000089.jpg")
    words = ["demo", "image", "--path", photo, "--save", str(tmp_path), "--device", "cpu"]
    main([*words, "-n", "yolox-nano", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())[0]["detections"]
    assert {"oven", "microwave", "knife"} <= {detection["name"] for detection in found}
    for more in ([], ["-n", "yolox-nano", "-c", "yolox-nano"]):
        status, _, error = outcome(capsys, [*words, *more])
        assert status == 1
        assert "either -c CHECKPOINT or -n NAME" in error


def test_demo_eval__say_how_to_convert_an_official_file(golden, tmp_path, capsys):
    path, image = str(tmp_path / "yolox_nano.pth"), str(tmp_path / "a.png")
    torch.save({"model": official(golden, "nano")}, path)
    cv2.imwrite(image, np.zeros((8, 8, 3), np.uint8))
    demo = ["demo", "image", "--path", image, "-c", path, "--save", str(tmp_path / "out"), "--device", "cpu"]
    for words in (demo, ["eval", "-n", "yolox-nano", "-c", path, "--device", "cpu"]):
        status, _, error = outcome(capsys, words)
        assert status == 1
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert f"python tools/convert.py {path} NEW.pth" in line


def test_package__lists_every_folder_of_the_library():
    """pyproject.toml names the packages of the wheel one by one; a forgotten one would be missing when installed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'^    "(yolox_lt[a-z_.]*)",$', text, re.MULTILINE))
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "yolox_lt").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders} | {"yolox_lt.exp.default"}
    assert '"yolox_lt.exp.default" = "exps/default"' in text


@pytest.mark.parametrize("command", ["train", "eval", "inspect", "model"])
def test_experiment_files__are_called_code_where_one_gives_them(command, capsys):
    status, out, _ = outcome(capsys, [command, "--help"])
    assert status == 0
    assert "Python code that is executed, so run only files you trust" in " ".join(out.split())
    assert "Experiment files are code" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["train", "eval", "demo", "export", "calibrate"])
def test_full_gpu__advice_names_options_that_the_command_has(name, capsys):
    module = importlib.import_module(f"yolox_lt.commands.{name}")
    parser = module.make_parser()
    words = {
        "demo": ["image", "--path", "a.jpg", "-n", "yolox-nano"],
        "export": ["-c", "a.pth", "--format", "onnx"],
        "calibrate": ["-c", "a.pth", "--method", "prior"],
    }

    def full(args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(SystemExit) as ended:
        common.run(full, parser, words.get(name, ["-f", "a.py", "-c", "a.pth"]))
    assert ended.value.code == 1
    sentence = capsys.readouterr().err.strip()
    assert "the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB); " in sentence
    named = re.findall(r"(?<![\w-])--?[a-z][a-z0-9]*", sentence.split("); ")[1])
    assert named
    assert set(named) <= set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9]*", parser.format_help()))
