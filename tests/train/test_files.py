"""A full disk, a folder that cannot be written, two runs in one folder: said in one sentence, nothing lost.

The disk is full by the operating system's own limit on the size of a file, in a forked process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loguru import logger

from tests.data.test_index_cache import assert_same, content
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.checkpoint import load_checkpoint, save_checkpoint
from yolox_lt.commands.common import user_error
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.train.run_lock import run_lock

ROOT = Path(__file__).resolve().parents[2]


def with_full_disk(limit: int, action: Callable[[], object]) -> str:
    """Run `action` in a process whose files may have `limit` bytes; its UserError's sentence, "" for none."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "no answer"
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            action()
            answer = ""
        except Exception as error:
            answer = user_error(error) or repr(error)
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        return file.read()


def checkpoint(value: float) -> dict[str, object]:
    return {"model": {"a": torch.full((100_000,), value)}, "exp": {}}


@pytest.mark.parametrize("limit", [0, 5_000, 100_000, 400_000])
def test_disk_full__checkpoint_keeps_the_old_file(tmp_path, limit):
    path = tmp_path / "latest.pth"
    save_checkpoint(path, checkpoint(1))
    sentence = with_full_disk(limit, lambda: save_checkpoint(path, checkpoint(2)))
    assert sentence.startswith(f"{path}: checkpoint could not be written (")
    assert "free space or change output_dir" in sentence
    assert os.listdir(tmp_path) == ["latest.pth"]
    assert (load_checkpoint(path)["model"]["a"] == 1).all()


def test_disk_full__index_stays_in_memory_and_says_so(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content()))
    sentence = with_full_disk(2_000, lambda: check_in_memory(path))
    assert sentence == ""
    assert os.listdir(tmp_path) == ["a.json"]
    assert_same(AnnotationIndex.load(path), AnnotationIndex.load(path, cache=False))


def check_in_memory(path: Path) -> None:
    said: list[str] = []
    logger.add(lambda line: said.append(str(line)), level="WARNING")
    index = AnnotationIndex.load(path)
    assert len(said) == 1, said
    assert f"{path}.index cannot be written (File too large)" in said[0]
    assert len(index) == 50


def test_disk_full__any_other_file_ends_in_a_sentence(tmp_path):
    sentence = with_full_disk(10, lambda: (tmp_path / "results.json").write_bytes(bytes(100)))
    assert sentence == "a file could not be written (File too large); free space, or write elsewhere"


def test_folder_that_cannot_be_written__is_named(tmp_path):
    """Below a file no folder can be made, whoever tries."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/run: cannot be written \(Not a directory\); give another output_dir"),
        run_lock(tmp_path / "file" / "run"),
    ):
        pass
    with pytest.raises(UserError, match="checkpoint could not be written"):
        save_checkpoint(tmp_path / "file" / "a.pth", checkpoint(1))


HOLD = """
import sys, time
from pathlib import Path
from yolox_lt.train.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs__the_second_is_refused_until_the_first_ends_or_is_killed(tmp_path):
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(
            UserError, match=rf"run: another run is writing here \(process {first.pid} on \S+\); wait for it"
        ),
        run_lock(folder),
    ):
        pass
    with run_lock(tmp_path / "other"):
        pass
    first.kill()
    first.wait()
    with run_lock(folder):
        assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_lock__is_not_kept_by_a_loader_that_outlives_its_run(tmp_path):
    """As after a SIGKILL of the main process: its forked workers notice seconds later."""
    reader, writer = os.pipe()
    main = os.fork()
    if main == 0:
        with run_lock(tmp_path):
            worker = os.fork()
            if worker == 0:
                time.sleep(30)
                os._exit(0)
            os.write(writer, str(worker).encode())
            time.sleep(30)
            os._exit(0)
    worker = int(os.read(reader, 20))
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    os.kill(worker, 0)  # is still there
    with run_lock(tmp_path):
        pass
    os.kill(worker, signal.SIGKILL)


EXP = """
from yolox_lt.exp import GlyphExp

class Exp(GlyphExp):
    def __init__(self):
        super().__init__()
        for name, value in {settings}.items():
            setattr(self, name, value)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_disk_full__a_run_ends_with_a_sentence_and_keeps_its_checkpoint(tmp_path_factory, tmp_path, limit):
    """The whole command, first without a limit, then resumed from its checkpoint with one."""
    exp = tiny_exp(tiny_data(tmp_path_factory), tmp_path)
    (tmp_path / "exp.py").write_text(EXP.format(settings=repr(vars(exp))))
    words = [sys.executable, "tools/train.py", "-f", str(tmp_path / "exp.py"), "-b", "4", "-d", "1", "--device", "cpu"]
    done = subprocess.run([*words, "max_epoch", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "tiny/latest.pth").read_bytes()

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run([*words, "--resume"], cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert (tmp_path / "tiny/latest.pth").read_bytes() == before
    load_checkpoint(tmp_path / "tiny/latest.pth")


@pytest.mark.slow
def test_second_run__of_the_command_is_refused(tmp_path_factory, tmp_path):
    exp = tiny_exp(tiny_data(tmp_path_factory), tmp_path)
    (tmp_path / "exp.py").write_text(EXP.format(settings=repr(vars(exp))))
    words = [sys.executable, "tools/train.py", "-f", str(tmp_path / "exp.py"), "-b", "4", "-d", "1", "--device", "cpu"]
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "tiny")], cwd=ROOT, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    first.kill()
    first.wait()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/tiny: another run is writing here (process ")
    assert os.listdir(tmp_path / "tiny") == [".lock"]
