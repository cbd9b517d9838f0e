"""Training over two nodes on one machine: two network namespaces joined by a virtual link. Needs root and iproute2.

    python -m benchmarks.two_nodes [--parts same,lost,restart,annotations,folder] [--work FOLDER]

Every node is a network namespace with an address of its own; `torchrun --nnodes 2 --nproc-per-node 1` runs in each, on
CPUs with gloo. A node sees its own network interfaces and, where a part says so, its own run folder; the host name, the
code and the data are shared. Killing a node is SIGKILL to every process of its namespace.

    same        losses, weights and everything else of the run equal those of one node with two ranks, bit by bit
    lost        one node is killed: the other ends with one sentence, in time
    restart     a rank is killed: the agents start both again, and the run resumes from its last checkpoint, also with
                an earlier run's checkpoints in the folder, which stay
    annotations only rank 0 parses the annotations
    folder      a run folder that only rank 0's node can see, also when the run is resumed
    address     without GLOO_SOCKET_IFNAME the run ends with a sentence that names it
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.kills import DATA, EXP
from benchmarks.nodes import LOST, ROOT, TO_END, Node, Run, two_nodes, why_not
from benchmarks.run_difference import differences
from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.distributed.processes import free_port


def one_node(data: Path, output: Path) -> Path:
    """The run folder of the same training on one node with two ranks."""
    run = Run(data, output, [])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    with (output / "node0.log").open("wb") as log:
        done = subprocess.run(
            [*command, *run.words()], stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    assert done.returncode == 0, run.log(0)[-3000:]
    return output / "run"


def same(data: Path, work: Path, nodes: list[Node]) -> str:
    """Two nodes against one."""
    reference = one_node(data, work / "one_node")
    run = Run(data, work / "same", nodes)
    run.start(elastic=False)
    run.finish()
    found = differences(reference, run.output / "run")
    assert found == [], found
    return f"{len(run.rows())} steps, {len(list((run.output / 'run').glob('*.pth')))} checkpoints, 0 differences"


def lost(data: Path, work: Path, nodes: list[Node]) -> str:
    """Node 1 is killed, then, in another run, node 0."""
    told = []
    for gone in (1, 0):
        run = Run(data, work / f"lost{gone}", nodes)
        run.start("max_epoch", 200)
        run.wait_for(3)
        nodes[gone].kill()
        begin = time.monotonic()
        statuses = run.wait(TO_END)
        told.append(f"{time.monotonic() - begin:.1f} s")
        assert statuses[1 - gone] not in (0, None), statuses
        assert run.log(1 - gone).count(LOST) == 1, run.log(1 - gone)[-3000:]
        assert run.content()["iteration"] >= 2
    return f"node 0 ended {told[0]} after node 1 was killed, node 1 {told[1]} after node 0"


def restart(data: Path, work: Path, nodes: list[Node]) -> str:
    """A rank on either node is killed; the folder holds an earlier run."""
    told = []
    reference = one_node(data, work / "unbroken")
    for gone, elastic in ((1, True), (0, True), (1, False)):
        run = Run(data, work / f"restart{gone}{'' if elastic else '_static'}", nodes)
        (run.output / "run").mkdir()
        for name in ("latest.pth", "best.pth"):
            torch.save(torch.load(reference / name, weights_only=True) | {"seed": 77}, run.output / "run" / name)
        run.start(restarts=2, elastic=elastic)
        run.wait_for(5)
        os.kill(nodes[gone].rank(), signal.SIGKILL)
        run.finish()
        assert "resumed after iteration" in run.log(0), run.log(0)[-3000:]
        assert run.rows() == list(range(12))
        for name in ("latest", "best"):
            assert run.content(f"{name}.previous.pth")["seed"] == 77
            (run.output / f"run/{name}.previous.pth").unlink()
        found = differences(reference, run.output / "run")
        assert found == [], found
        line = next(line for line in run.log(0).splitlines() if "resumed after iteration" in line)
        told.append(f"rank {gone} ({'c10d' if elastic else 'static'}): {line.rpartition('resumed ')[2]}")
    return (
        "; ".join(told)
        + "; then equal to an uninterrupted run, bit by bit, and the earlier run's checkpoints are there"
    )


def annotations(data: Path, work: Path, nodes: list[Node]) -> str:
    """No index beside the annotations at the start: the only process that reads the json files is rank 0."""
    copy = work / "unread"
    shutil.copytree(data, copy)
    for index in copy.rglob("*.index"):
        index.unlink()
    notes = work / "parsed"
    notes.mkdir()
    file = work / "eqfl_noting.py"
    file.write_text(NOTING.format(exp=str(EXP), notes=str(notes)))
    run = Run(copy, work / "annotations", nodes)
    run.start("max_epoch", 1, "no_aug_epochs", 0, exp=file)
    run.finish()
    parsed = {path.name: path.read_text().split() for path in notes.iterdir()}
    assert parsed == {"rank0": ["glyphs_train.json", "glyphs_val.json"]}, parsed
    return "rank 0 parsed glyphs_train.json and glyphs_val.json, rank 1 nothing"


def folder(data: Path, work: Path, nodes: list[Node]) -> str:
    """Node 1 sees an empty folder in place of the output folder."""
    reference = one_node(data, work / "seen")
    run = Run(data, work / "folder", nodes)
    run.start(hide=True)
    run.wait_for(5)
    for node in nodes:
        os.kill(node.rank(), signal.SIGTERM)
    statuses = run.wait()
    stopped = run.content()["iteration"]
    assert 0 not in statuses, statuses
    assert stopped < 12, stopped
    run.processes = []
    run.start("--resume", hide=True)
    run.finish()
    found = differences(reference, run.output / "run")
    assert found == [], found
    return f"stopped after iteration {stopped}, resumed, equal to an uninterrupted run that both nodes see, bit by bit"


def address(data: Path, work: Path, nodes: list[Node]) -> str:
    """Gloo is not told its interface, and the host name does not resolve in these namespaces."""
    run = Run(data, work / "address", nodes)
    run.start(address=False)
    statuses = run.wait(TO_END)
    for number, node in enumerate(nodes):
        assert statuses[number] == 1, statuses
        assert f"export GLOO_SOCKET_IFNAME={node.interface} on every node" in run.log(number), run.log(number)[-3000:]
    return "both nodes ended with a sentence that names their interface"


NOTING = '''"""The kill experiment, which notes what its process parses."""
import importlib.util, os
from pathlib import Path
from yolox_lt.data.annotations import index
spec = importlib.util.spec_from_file_location("original", {exp!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
if not hasattr(index, "unnoted"):
    index.unnoted = index._read
    def read(source):
        with open(Path({notes!r}) / ("rank" + os.environ["RANK"]), "a") as file:
            file.write(source.path.name + "\\n")
        return index.unnoted(source)
    index._read = read
class Exp(module.Exp):
    pass
'''

PARTS: dict[str, Callable[[Path, Path, list[Node]], str]] = {
    part.__name__: part for part in (same, lost, restart, annotations, folder, address)
}


def main() -> int:
    """Run the parts; the status is 1 if one fails, 2 if this machine cannot run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="%(default)s")
    parser.add_argument("--work", type=Path, help="folder of data and runs; a temporary one if not given")
    args = parser.parse_args()
    lacking = why_not()
    if lacking is not None:
        print(f"two nodes: not run, {lacking}")
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        data = work / "data"
        ensure_glyphs(data, **DATA)
        for name in args.parts.split(","):
            begin = time.monotonic()
            with two_nodes() as nodes:
                try:
                    said = PARTS[name](data, work, nodes)
                except Exception as error:  # the other parts continue
                    failed += 1
                    said = f"FAILED: {type(error).__name__}: {error}"
            print(f"{name} ({time.monotonic() - begin:.0f} s): {said}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
