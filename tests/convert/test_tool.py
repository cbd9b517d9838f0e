"""tools/convert.py as a user types it: the report, the next commands, the one sentence of an error."""

from __future__ import annotations

import torch

from tests.convert.files import released
from tests.processes import ROOT, Done, run_script
from yolox_lt.checkpoint import load_checkpoint


def tool(*args: object, status: int = 0) -> Done:
    done = run_script(ROOT / "tools/convert.py", *args)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def test_tool__prints_report_and_next_commands(golden, tmp_path):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save({"model": released(golden, "yolox_s"), "epoch": 300}, source)
    exp = "exps/lvis/yolox_s_efl.py"
    lines = tool(source, target, "-f", exp, "--channels", "anchor-major").stdout.splitlines()
    assert lines[0] == f"{source}: released EFL/EQFL YOLOX, weights under model"
    assert lines[1] == f"{target}: YOLOX-S*, 1203 categories"
    assert lines[2] == "  462 tensors matched, 0 missing, 0 unexpected, 1 reordered, 3 dropped"
    assert any(line.endswith("anchor-major as asked for") for line in lines)
    assert lines[-3:] == [
        "next:",
        f"  python tools/eval.py -f {exp} -c {target}",
        f"  python tools/demo.py image --path PHOTO -c {target}",
    ]
    assert load_checkpoint(target)["exp"]["cls_loss"] == "efl"


def test_tool__error_is_one_sentence_and_status_1(tmp_path):
    (tmp_path / "in.pth").write_text("hello")
    done = tool(tmp_path / "in.pth", tmp_path / "out.pth", status=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'in.pth'}: not a readable checkpoint")
    assert not (tmp_path / "out.pth").exists()
