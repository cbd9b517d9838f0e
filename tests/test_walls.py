"""What may import what, read from the sources themselves; and the size of files and experiments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "yolox_lt"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full dotted names of everything a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def uses(path: Path, prefix: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for name in imports(path))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("models", ["losses", "assign", "data", "criterion", "train", "exp"]),
        ("losses", ["models", "assign", "data", "train", "exp"]),
        ("assign", ["models", "losses", "data", "train", "exp"]),
        ("data", ["models", "losses", "assign", "train", "exp", "evaluate"]),
        ("boxes", ["types", "models", "losses", "assign", "data", "train", "exp"]),
        ("predict", ["losses", "assign", "data", "train", "exp"]),
    ],
)
def test_walls__a_package_does_not_import(package, forbidden):
    files = [p for p in FILES if package_of(p) == package]
    assert files
    for path in files:
        for name in forbidden:
            assert not uses(path, f"yolox_lt.{name}"), f"{path} imports yolox_lt.{name}"


def test_walls__distributed_only_where_it_belongs():
    for path in FILES:
        if package_of(path) in ("losses", "assign") and path.name != "balance.py":
            assert not uses(path, "torch.distributed"), path


def test_walls__experiments_are_imported_by_experiments_api_commands_and_convert_alone():
    for path in FILES:
        if package_of(path) in ("exp", "api", "commands", "convert"):
            continue
        runtime = ast.parse(path.read_text(encoding="utf-8"))
        for node in runtime.body:  # imports for type checking are inside an `if`
            if isinstance(node, ast.ImportFrom):
                assert not f"{node.module}.".startswith("yolox_lt.exp."), path


def test_walls__environment_variables_are_read_in_two_places_and_set_in_one():
    users = {p.relative_to(PACKAGE).as_posix() for p in FILES if "os.environ" in p.read_text(encoding="utf-8")}
    # The commands set how long OpenMP threads spin, which has to happen before torch is loaded.
    assert users == {"distributed/processes.py", "data/dataset.py", "commands/__init__.py"}


def test_sizes__files_and_experiments_stay_small():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    for path in sorted((ROOT / "exps").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef)]
        assert cls.end_lineno - cls.lineno + 1 <= 25, path
