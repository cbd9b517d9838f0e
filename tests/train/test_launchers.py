"""Whole commands with several processes, killed and stopped: `-d 2`, torchrun, its elastic agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.kills import DATA, EXP, SETTINGS
from benchmarks.run_difference import differences
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.distributed.processes import free_port
from yolox_lt.distributed.signals import EXIT_STATUS

pytestmark = pytest.mark.slow
TWO = ("-d", "2")
ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0  # seconds for a run
TO_END = 60.0  # seconds for the others after one rank is lost: SIGTERM at once, SIGKILL after 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    ensure_glyphs(folder, **DATA)
    return folder


def start(launcher, data, output, options=(), settings=()):
    """The command with `launcher` before the tool; its output goes to output/log."""
    words = ["-f", str(EXP), "-expn", "run", "--device", "cpu", *options, *SETTINGS.split(), "data_num_workers", "0"]
    words += ["data_dir", str(data), "output_dir", str(output), *settings]
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *launcher, str(ROOT / "tools/train.py"), *words]
    with open(output / "log", "ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
        )


def torchrun(ranks, *options):
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(free_port()), *options]


def rank_processes(parent):
    """Process ids of the ranks that a launcher has started, in their order."""
    threads = Path(f"/proc/{parent}/task").iterdir()
    children = sorted(int(word) for thread in threads for word in (thread / "children").read_text().split())
    commands = {p: Path(f"/proc/{p}/cmdline").read_bytes() for p in children}
    return [p for p, c in commands.items() if b"spawn_main" in c or b"train.py" in c]


def wait_for_steps(output, steps):
    """Until the run has written a row for that many steps."""
    path, end = output / "run/metrics.jsonl", time.monotonic() + LIMIT
    while not path.exists() or len(path.read_text().splitlines()) < steps:
        assert time.monotonic() < end, (output / "log").read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["-d 2", "torchrun"])
def test_killed_rank__ends_the_others_with_a_message(data, tmp_path, kind):
    process = start([], data, tmp_path, TWO) if kind == "-d 2" else start(torchrun(2), data, tmp_path)
    wait_for_steps(tmp_path, 2)
    os.kill(rank_processes(process.pid)[1], signal.SIGKILL)
    begin = time.monotonic()
    assert process.wait(LIMIT) == 1
    assert time.monotonic() - begin < TO_END
    said = (tmp_path / "log").read_text()
    if kind == "-d 2":
        assert "error: rank 1 was ended by SIGKILL, so the others were ended; look for a full memory" in said
        assert "Traceback" not in said
    else:
        assert "another rank has ended or does not answer" in said or "Signal 9 (SIGKILL)" in said
    load_checkpoint(tmp_path / "run/latest.pth")


def test_signal__to_the_command_reaches_the_ranks_and_the_run_goes_on(data, tmp_path):
    process = start([], data, tmp_path, TWO)
    wait_for_steps(tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == EXIT_STATUS, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "stopped by SIGTERM after iteration" in said
    assert "Traceback" not in said
    process = start([], data, tmp_path, TWO, ("auto_resume", "True"))
    assert process.wait(LIMIT) == 0, (tmp_path / "log").read_text()
    content = load_checkpoint(tmp_path / "run/latest.pth")
    assert (content["epoch"], content["iteration"]) == (3, 12)


def test_elastic_agent__starts_three_ranks_again_and_the_run_goes_on_bit_for_bit(data, tmp_path):
    more = ("batch_size", "6", "auto_resume", "True")
    straight = start(torchrun(3), data, tmp_path / "straight", settings=more)
    assert straight.wait(LIMIT) == 0, (tmp_path / "straight/log").read_text()
    output = tmp_path / "killed"
    process = start(torchrun(3, "--max-restarts", "1"), data, output, settings=more)
    wait_for_steps(output, 7)
    os.kill(rank_processes(process.pid)[2], signal.SIGKILL)
    assert process.wait(LIMIT) == 0, (output / "log").read_text()
    assert "resumed after iteration" in (output / "log").read_text()
    assert differences(tmp_path / "straight/run", output / "run") == []
    rows = [json.loads(line)["iteration"] for line in (output / "run/metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(12))
