"""Mutation check: how many small mistakes in losses, assigners, evaluation and sampler the fast suite catches.

    python -m benchmarks.mutants [FILE ...] [--every N] [--first K] [--seconds 20] [--out survivors.json]

A mutant is one file with one change: a sign turned (+ -, * /, & |, a unary minus or not dropped), a comparison moved
(< <=, > >=, == !=, is, in), min and max exchanged, `and` and `or` exchanged, a whole number raised by one. Type hints,
the texts of errors and the sizes of blocks, which change speed alone, are left as they are.

Tests are collected once. Each mutant runs in a forked process, in which the code of every changed function is put in
place of the real one, and the tests of the file's row in TESTS run until the first fails; the one that caught the
mutant before comes first. A mutant is caught when a test fails, when the changed file cannot be executed, or when the
tests need more than --seconds of CPU, ten times as many by the clock, or 12 GiB of address space.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

MEMORY = 12 << 30  # bytes of address space of one child

TWO_RANKS = "test_released__two_gloo_ranks_share_normalisers_and_statistic"
"""Takes 20 seconds: only the file that talks to other ranks is worth it."""

LOSSES = (
    "tests/losses/test_blocks.py",
    "tests/losses/test_golden.py",
    "tests/losses/test_properties.py",
    "tests/test_criterion.py",
)
EVALUATION = ("tests/evaluate/test_lvis.py", "tests/evaluate/test_coco.py", "tests/evaluate/test_report.py")

TESTS: dict[str, tuple[str, ...]] = {
    "yolox_lt/losses/balance.py": (
        *LOSSES,
        "tests/losses/test_ratios.py",
        "tests/losses/test_region_golden.py",
        "tests/train/test_balance_history.py",
    ),
    "yolox_lt/losses/box.py": ("tests/losses/test_blocks.py", "tests/test_criterion.py"),
    "yolox_lt/losses/eqlv2.py": LOSSES,
    "yolox_lt/losses/equalized.py": (*LOSSES, "tests/losses/test_beyond.py", "tests/losses/test_ratios.py"),
    "yolox_lt/losses/focal.py": LOSSES,
    "yolox_lt/losses/kernel.py": LOSSES,
    "yolox_lt/losses/ratios.py": ("tests/losses/test_ratios.py", *LOSSES),
    "yolox_lt/assign/atss.py": ("tests/assign/test_atss.py", "tests/test_criterion.py"),
    "yolox_lt/assign/fcos.py": ("tests/assign/test_settings.py", "tests/assign/test_fcos.py"),
    "yolox_lt/assign/max_iou.py": (
        "tests/assign/test_settings.py",
        "tests/assign/test_max_iou.py",
        "tests/assign/test_paa.py",
    ),
    "yolox_lt/assign/paa.py": ("tests/assign/test_settings.py", "tests/assign/test_paa.py"),
    "yolox_lt/assign/simota.py": ("tests/assign/test_simota.py", "tests/test_criterion.py"),
    "yolox_lt/evaluate/lvis.py": EVALUATION,
    "yolox_lt/evaluate/matching.py": EVALUATION,
    "yolox_lt/evaluate/curves.py": EVALUATION,
    "yolox_lt/data/sampling/sampler.py": (
        "tests/data/test_sampler.py",
        "tests/data/test_continued_sampler.py",
        "tests/data/test_frequency_sampler.py",
        "tests/data/test_short_side.py",
    ),
}
"""File -> the files of the tests that cover it."""

BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
EXTREMES = {a: b for x in ("{}", "a{}", "arg{}", "{}imum") for a, b in [(x.format("min"), x.format("max"))]}
EXTREMES |= {b: a for a, b in EXTREMES.items()}


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, the expression before and after, and the text of the whole changed file."""

    file: str
    line: int
    before: str
    after: str
    text: str


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every changed copy of one node, its children as they were."""

    def changed(**fields: object) -> ast.AST:
        copied = copy.copy(node)
        for name, value in fields.items():
            setattr(copied, name, value)
        return copied

    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in BINARY:
        yield changed(op=BINARY[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for position, op in enumerate(node.ops):
            ops = [*node.ops[:position], COMPARISONS[type(op)](), *node.ops[position + 1 :]]
            yield changed(ops=ops)
    elif isinstance(node, ast.BoolOp):
        yield changed(op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Name) and node.id in EXTREMES:
        yield changed(id=EXTREMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in EXTREMES:
        yield changed(attr=EXTREMES[node.attr])
    elif isinstance(node, ast.keyword) and node.arg in EXTREMES:
        yield changed(arg=EXTREMES[node.arg])
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield changed(value=node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in EXTREMES:
        yield changed(value=EXTREMES[node.value])


def places(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, str, int | None]]:
    """(parent, field, position in the field's list or None) of every expression that may be changed."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Raise, ast.Import, ast.ImportFrom)):
                continue
            if not in_function and (is_type_alias(child) or is_block_size(child)):
                continue
            yield node, field, position
            yield from places(child, in_function or isinstance(child, ast.FunctionDef))


def is_type_alias(node: ast.AST) -> bool:
    """`Results = str | Path | ...` at the top of a module."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)


def is_block_size(node: ast.AST) -> bool:
    """`OBJECTS_PER_BLOCK = 16`: how much is treated at once, which changes nothing but speed and memory."""
    names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
    return any("_PER_BLOCK" in name or "_AT_ONCE" in name for name in names)


def mutants(file: str, source: str | None = None) -> list[Mutant]:
    """All mutants of a file, by line."""
    tree = ast.parse((ROOT / file).read_text() if source is None else source)
    found = []
    for parent, field, position in list(places(tree)):
        slot = getattr(parent, field)
        original = slot if position is None else slot[position]
        shown = parent if isinstance(original, (ast.Name, ast.Constant, ast.keyword)) else original
        for replacement in changes(original):
            before = ast.unparse(shown)
            put(parent, field, position, replacement)
            after = ast.unparse(shown if shown is parent else replacement)
            line = getattr(original, "lineno", getattr(shown, "lineno", 0))
            found.append(Mutant(file, line, before, after, ast.unparse(tree)))
            put(parent, field, position, original)
    return sorted(found, key=lambda mutant: mutant.line)


def put(parent: ast.AST, field: str, position: int | None, node: ast.AST) -> None:
    if position is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[position] = node


def put_in_place(mutant: Mutant) -> None:
    """Exchange the code of everything that the mutant's module defines, wherever it has been imported to."""
    name = mutant.file.removesuffix(".py").replace("/", ".")
    module = sys.modules[name]
    changed: dict[str, Any] = {"__name__": name, "__file__": module.__file__}
    # Our own file with one change. Its classes look their module up by name, as dataclasses do for their fields.
    exec(compile(mutant.text, str(module.__file__), "exec"), changed)  # nosec B102
    users = [m for n, m in list(sys.modules.items()) if n.startswith(("yolox_lt", "tests"))]
    for key, new in changed.items():
        old = vars(module).get(key)
        if key.startswith("__") or getattr(new, "__module__", name) != name:
            continue
        if isinstance(old, (FunctionType, type)):
            exchange(old, new)
        else:
            for user in users:
                if vars(user).get(key) is old:
                    setattr(user, key, new)


def exchange(old: Any, new: Any) -> None:
    """Give a function, or every function of a class, the code and the defaults of its changed copy."""
    if isinstance(old, FunctionType):
        if hasattr(old, "__wrapped__"):  # of a decorator such as torch.no_grad
            exchange(old.__wrapped__, new.__wrapped__)
            return
        if len(old.__code__.co_freevars) == len(new.__code__.co_freevars):
            old.__code__ = new.__code__
        old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
        return
    for key, value in vars(new).items():
        here = vars(old).get(key)
        if isinstance(value, (staticmethod, classmethod)):
            exchange(here.__func__, value.__func__)  # type: ignore[union-attr]
        elif isinstance(value, FunctionType) and isinstance(here, FunctionType):
            exchange(here, value)
        elif isinstance(value, (bool, int, float, str, tuple)) and not key.startswith("__"):
            setattr(old, key, value)


class Checks:
    """The plugin of pytest that runs the tests on every mutant instead of once.

    Attributes: survivors, tried, caught (numbers).
    """

    def __init__(self, files: Sequence[str], part: slice, seconds: float) -> None:
        self.files, self.part, self.seconds = files, part, seconds
        self.survivors: list[Mutant] = []
        self.tried = self.caught = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for file in self.files:
            tests = [item for item in session.items if item.nodeid.split("::")[0] in TESTS[file]]
            if not file.endswith("balance.py"):
                tests = [item for item in tests if TWO_RANKS not in item.nodeid]
            unchanged = Mutant(file, 0, "", "", (ROOT / file).read_text())
            if self.first_failure(session, tests, unchanged) is not None:
                sys.exit(f"{file}: its tests fail without any change, so they can tell nothing")
            start, chosen = time.monotonic(), mutants(file)[self.part]
            survivors = len(self.survivors)
            for mutant in chosen:
                found = self.first_failure(session, tests, mutant)
                if found is None:
                    self.survivors.append(mutant)
                    print(f"  survives: {file}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
                elif 0 <= found < len(tests):
                    tests.insert(0, tests.pop(found))
            caught = len(chosen) - len(self.survivors) + survivors
            self.tried, self.caught = self.tried + len(chosen), self.caught + caught
            print(f"{file}: {caught} of {len(chosen)} caught, {time.monotonic() - start:.0f} s", flush=True)
        return True

    def first_failure(self, session: pytest.Session, tests: list[pytest.Item], mutant: Mutant) -> int | None:
        """Position of the test that catches a mutant, -1 for a time-out or a broken file, None for a survivor."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (round(self.seconds),) * 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            run_tests(session, tests, mutant, writer)
        os.close(writer)
        deadline = time.monotonic() + 10 * self.seconds
        done = 0
        while not done and time.monotonic() < deadline:
            done, _ = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        if not done:
            os.killpg(pid, signal.SIGKILL)  # with the ranks that a test may have started
            os.waitpid(pid, 0)
        answer = os.read(reader, 20)
        os.close(reader)
        return int(answer) if answer and int(answer) < len(tests) else None if answer else -1


def run_tests(session: pytest.Session, tests: list[pytest.Item], mutant: Mutant, writer: int) -> None:
    """In the child: put the mutant in place, run its tests up to the first that fails, tell its position."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        put_in_place(mutant)
        for position, item in enumerate(tests):
            following = tests[position + 1] if position + 1 < len(tests) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                break
        else:
            position = len(tests)
        os.write(writer, str(position).encode())
    finally:
        os._exit(0)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=list(TESTS), help="of TESTS; all if none is given")
    parser.add_argument("--every", type=int, default=1, help="try every Nth mutant only")
    parser.add_argument("--first", type=int, default=0, help="begin with mutant K of each file, counted from 0")
    parser.add_argument("--seconds", type=float, default=20, help="CPU seconds for one mutant")
    parser.add_argument("--out", type=Path, help="json file for the survivors")
    args = parser.parse_args(words)
    os.chdir(ROOT)
    checks = Checks(args.files, slice(args.first, None, args.every), args.seconds)
    paths = sorted({path for file in args.files for path in TESTS[file]})
    pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", *paths], plugins=[checks])
    print(f"{checks.caught} of {checks.tried} mutants caught, {100 * checks.caught / max(checks.tried, 1):.1f} %")
    if args.out is not None:
        args.out.write_text(json.dumps([{**asdict(m), "text": ""} for m in checks.survivors], indent=1))


if __name__ == "__main__":
    main()
