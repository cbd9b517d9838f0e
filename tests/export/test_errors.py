"""What a user can get wrong: one sentence each, and no file left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.export.detectors import at_size, random_detector
from tests.processes import run_script
from yolox_lt.checkpoint import plain, save_checkpoint
from yolox_lt.commands import run_command
from yolox_lt.errors import UserError
from yolox_lt.export import ExportOptions, export, load_onnx, load_torchscript
from yolox_lt.inference import LoadedDetector

pytestmark = pytest.mark.xdist_group("exported")


@pytest.fixture(scope="module")
def detector(images, conf=0):
    return random_detector("star", images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, r"format 'tflite' is unknown; choose one of onnx, torchscript"),
        ({"opset": 16}, r"--opset 16: give 17 to 20"),
        ({"batch": 0}, r"--batch 0: give a number of at least 1, or dynamic"),
        ({"test_size": (0, 64)}, r"--size 0 64"),
    ],
)
def test_options__that_make_no_sense(detector, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export(detector, tmp_path / "x.onnx", ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_package__that_is_missing(detector, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"^{package} is not installed \(.*\); run pip install onnx onnxruntime$"):
        export(detector, tmp_path / "x.onnx", ExportOptions())
    if package == "onnxruntime":
        with pytest.raises(UserError, match="run pip install onnx onnxruntime"):
            load_onnx(tmp_path / "x.onnx")


def test_score_voting__is_not_exported(images, tmp_path):
    voting = random_detector("resnet", images)
    voting.exp.score_voting = True
    with pytest.raises(UserError, match=r"--nms: score_voting cannot be exported; export without --nms"):
        export(voting, tmp_path / "x.onnx", ExportOptions(nms=True))


def test_folder__that_cannot_be_written(detector, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"file/x\.onnx: cannot be written \(Not a directory\); give another file with -o"
    ):
        export(detector, tmp_path / "file" / "x.onnx", ExportOptions())


@pytest.mark.parametrize("options", [{}, {"format": "torchscript", "nms": True}])
def test_difference__that_is_too_large_leaves_the_old_file(detector, tmp_path, options):
    # An experiment that looks at its images with Python: what it finds while tracing becomes a constant of the file.
    class Darker(type(detector.exp)):
        def normalize(self, images, content_sizes=None):
            return images.float() * (1.0 if float(images.float().std()) < 1 else 0.9)

    target = tmp_path / "x.onnx"
    target.write_text("old")
    darker = LoadedDetector(detector.model, Darker(), detector.names, "cpu")
    darker.exp.update(detector.exp.attributes())
    with pytest.raises(UserError, match=r"x\.onnx: not written, the exported network differs from the model by"):
        export(darker, target, ExportOptions(**options))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_load__other_files(tmp_path):
    with pytest.raises(UserError, match=r"x\.onnx: exported file not found"):
        load_onnx(tmp_path / "x.onnx")
    text = tmp_path / "text"
    text.write_text("no network")
    with pytest.raises(UserError, match=r"text: not a readable ONNX file"):
        load_onnx(text)
    with pytest.raises(UserError, match=r"text: not a readable TorchScript file"):
        load_torchscript(text)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [])
    graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    foreign = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    with pytest.raises(UserError, match=r"foreign\.onnx: holds no metadata of this project"):
        load_onnx(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"device 'cuda:99'"):
        load_onnx(tmp_path / "foreign.onnx", "cuda:99")


def test_export__of_an_exported_file(exported, tmp_path):
    again = load_onnx(exported("many", batch=2, nms=True).path)
    with pytest.raises(UserError, match="an exported file cannot be exported again; give the checkpoint"):
        export(again, tmp_path / "x.onnx", ExportOptions())


def test_command__writes_beside_the_checkpoint_and_prints_the_difference(detector, images, tmp_path):
    checkpoint = tmp_path / "best.pth"
    save_checkpoint(
        checkpoint,
        {
            **{"model": detector.model.state_dict(), "exp": plain(detector.exp.attributes()), "family": "yolox"},
            **{"names": list(detector.names), "category_ids": list(range(1, 6))},
        },
    )
    words = ["-c", str(checkpoint), "--format", "onnx", "--nms", "--batch", "dynamic", "--size", "96", "64"]
    tool = Path(__file__).parents[2] / "tools" / "export.py"
    done = run_script(tool, *words)
    assert done.returncode == 0, done.stderr
    assert "largest difference to the PyTorch model: " in done.stdout
    assert f"{tmp_path / 'best.onnx'}: written" in done.stdout
    found = load_onnx(tmp_path / "best.onnx")
    assert found.exp.test_size == (96, 64)
    want = at_size(detector, (96, 64))(images[0])
    np.testing.assert_allclose(found(images[0]).scores[:20], want.scores[:20], atol=1e-4)
    torch.testing.assert_close(found(images[0]).boxes[:5], want.boxes[:5], rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "none.pth: checkpoint not found"),
        (["-o", "nowhere/x.onnx"], "nowhere/x.onnx: its folder does not exist; create it or give another file with -o"),
        (["--batch", "many"], "--batch many: give a number of at least 1, or dynamic"),
    ],
)
def test_command__errors_are_one_sentence(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run_command("export", ["-c", "none.pth", "--format", "onnx", *words])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_command__unknown_format(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command("export", ["-c", "none.pth", "--format", "tflite"])
    assert stopped.value.code == 2
    assert "invalid choice: 'tflite'" in capsys.readouterr().err
