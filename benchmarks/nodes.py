"""Two nodes on one machine: network namespaces joined by a virtual link, and a training over both."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.kills import EXP, SETTINGS
from yolox_lt.distributed.processes import free_port

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0
"""Seconds of one run."""
TO_END = 60.0
"""Seconds for a node after the other one is gone."""
LOST = "error: another rank has ended or does not answer"


DENIED = ("not permitted", "Permission denied", "Read-only file system", "not supported", "Unknown device type")
"""What ip says where a machine does not let it make namespaces or links."""


def why_not() -> str | None:
    """What this machine lacks for two nodes, None if nothing.

    Raises:
        subprocess.CalledProcessError: ip fails for a reason that is not the machine's.
    """
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("ip") is None:
        return "needs the command ip (iproute2)"
    try:
        with two_nodes():
            return None
    except subprocess.CalledProcessError as error:
        if not any(words in error.stderr for words in DENIED):
            raise
        return f"network namespaces cannot be made here ({error.stderr.strip()})"


class Node:
    """One network namespace. interface, address: of its end of the link."""

    def __init__(self, name: str, interface: str, address: str) -> None:
        self.name, self.interface, self.address = name, interface, address

    def processes(self) -> list[int]:
        """Ids of all processes of the namespace."""
        return [int(word) for word in ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """End every process, as a power failure does."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def rank(self) -> int:
        """Process id of its rank: the child of the agent."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{process}/cmdline").read_bytes()
                if b"tools/train.py" in command and b"torch.distributed.run" not in command:
                    return process
        raise RuntimeError(f"{self.name}: no rank is running")


def ip(*words: str) -> str:
    """Output of the command ip."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Two namespaces joined by a link; both are gone afterwards, with whatever runs in them."""
    mark = f"{os.getpid() % 10**6}"
    nodes = [Node(f"node{i}_{mark}", f"v{i}_{mark}", f"10.97.0.{i + 1}") for i in (0, 1)]
    made = []
    try:
        for node in nodes:
            ip("netns", "add", node.name)
            made.append(node)
        first, second = nodes
        ip(
            "-n",
            first.name,
            "link",
            "add",
            first.interface,
            "type",
            "veth",
            "peer",
            second.interface,
            "netns",
            second.name,
        )
        for node in nodes:
            ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", node.interface)
            for interface in ("lo", node.interface):
                ip("-n", node.name, "link", "set", interface, "up")
        yield nodes
    finally:
        for node in made:
            node.kill()
            ip("netns", "delete", node.name)  # and with it the link


class Run:
    """One training over two nodes. output: the run's folder is output/run, its nodes' logs output/node0.log and 1."""

    def __init__(self, data: Path, output: Path, nodes: list[Node]) -> None:
        self.data, self.output, self.nodes = data, output, nodes
        self.processes: list[subprocess.Popen[bytes]] = []
        output.mkdir(parents=True, exist_ok=True)

    def words(self, *more: object, exp: Path = EXP) -> list[str]:
        """The tool and its arguments, the same on both nodes; options begin with --."""
        places = ["data_dir", self.data, "output_dir", self.output]
        start = [ROOT / "tools/train.py", "-f", exp, "-expn", "run", "--device", "cpu"]
        options = [word for word in more if str(word).startswith("--")]
        settings = [word for word in more if word not in options]
        return [str(w) for w in [*start, *options, *SETTINGS.split(), *places, "data_num_workers", 0, *settings]]

    def log(self, node: int) -> str:
        """What a node has written so far."""
        return (self.output / f"node{node}.log").read_text()

    def start(
        self,
        *more: object,
        exp: Path = EXP,
        restarts: int = 0,
        hide: bool = False,
        address: bool = True,
        elastic: bool = True,
    ) -> None:
        """Start torchrun on both nodes.

        more: options and settings of the training. restarts: how often the agents may. hide: node 1 sees an empty
        folder in place of `output`.
        address: with GLOO_SOCKET_IFNAME. elastic: by a rendezvous that nodes may join again, else by node ranks.
        """
        port = free_port()
        for number, node in enumerate(self.nodes):
            command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            command += ["--max-restarts", str(restarts)]
            if elastic:
                meeting = f"{self.nodes[0].address}:{port}"
                is_host = str(number == 0).lower()
                command += ["--rdzv-backend", "c10d", "--rdzv-id", "two_nodes", "--rdzv-endpoint", meeting]
                command += ["--rdzv-conf", f"is_host={is_host}", "--local-addr", node.address]
            else:
                command += ["--node-rank", str(number)]
                command += ["--master-addr", self.nodes[0].address, "--master-port", str(port)]
            command += self.words(*more, exp=exp)
            if hide and number == 1:  # `ip netns exec` has a mount namespace of its own
                mount = f"mount -t tmpfs none {self.output} && exec"
                command = ["sh", "-c", f'{mount} "$@"', "sh", *command]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            environment.pop("GLOO_SOCKET_IFNAME", None)
            if address:
                environment["GLOO_SOCKET_IFNAME"] = node.interface
            with (self.output / f"node{number}.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", node.name, *command], stdout=log, stderr=log, cwd=ROOT, env=environment
                    )
                )

    def wait(self, limit: float = LIMIT) -> list[int]:
        """Exit statuses of both nodes."""
        end = time.monotonic() + limit
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]

    def finish(self) -> None:
        """Wait for a run that has to end well."""
        statuses = self.wait()
        assert statuses == [0, 0], f"statuses {statuses}\n{self.log(0)[-3000:]}\n{self.log(1)[-3000:]}"
        self.processes = []

    def rows(self) -> list[int]:
        """Iterations in metrics.jsonl."""
        path = self.output / "run/metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["iteration"] for line in lines]

    def wait_for(self, steps: int) -> None:
        """Until the run has made that many steps."""
        end = time.monotonic() + LIMIT
        while len(self.rows()) < steps:
            assert time.monotonic() < end, self.log(0)[-3000:]
            assert self.processes[0].poll() is None, self.log(0)[-3000:]
            time.sleep(0.02)

    def content(self, name: str = "latest.pth") -> dict:
        """A checkpoint of the run."""
        return torch.load(self.output / "run" / name, weights_only=True)
