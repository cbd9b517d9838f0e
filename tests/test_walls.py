"""What may import what, read from the sources: lazy and type-only imports count too. Names, docstrings and sizes."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "yolox_lt"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (
    ("__main__",),
    ("commands",),
    ("",),  # the facade: yolox_lt.load
    ("api",),
    ("train",),
    ("weights",),
    ("export", "convert"),
    ("inference",),
    ("exp",),
    ("report",),
    ("evaluate",),
    ("region_criterion",),
    ("predict", "criterion"),
    ("assign", "losses", "calibrate"),
    ("models",),
    ("data",),
    ("optim",),
    ("distributed",),
    ("checkpoint",),
    ("coders", "boxes"),
    ("types", "archive"),
    ("images", "render"),
    ("errors", "version"),
)
"""Packages and single files of the package, top to bottom: each imports only what stands in a lower row."""

EXCEPTIONS = {
    ("yolox_lt.exp.detection", "yolox_lt.train.engine"),  # Exp.get_trainer, and its argument
    ("yolox_lt.exp.detection", "yolox_lt.train.options"),
}
"""The imports that point up: (file, what it imports)."""


def module_of(path: Path) -> str:
    """Dotted name of a file; a package has the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name in MODULES} - {module_of(path)}


GRAPH = {
    module: {name for name in imported_modules(path) if (module, name) not in EXCEPTIONS}
    for module, path in MODULES.items()
}


def uses(path: Path, prefix: str) -> bool:
    """Whether a file imports a module of another library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return any(f"{name}.".startswith(f"{prefix}.") for name in names)


def room_of(module: str) -> str:
    """First part below the package, "" for the facade."""
    return module.split(".")[1] if "." in module else ""


def test_walls__no_circle_of_files():
    """Files that import nothing that is left are taken away until none is left; a circle would stay."""
    left = {module: set(imports) for module, imports in GRAPH.items()}
    while True:
        free = {module for module, imports in left.items() if not imports}
        if not free:
            break
        left = {module: imports - free for module, imports in left.items() if module not in free}
    assert left == {}


def test_walls__imports_point_down():
    rank = {room: row for row, rooms in enumerate(ROOMS) for room in rooms}
    assert {room_of(module) for module in MODULES} == set(rank)
    for module, imports in GRAPH.items():
        own = room_of(module)
        for name in imports:
            other = room_of(name)
            assert other == own or rank[other] > rank[own], f"{module} imports {name}"


def test_walls__exceptions_are_still_needed():
    for module, name in EXCEPTIONS:
        assert name in imported_modules(MODULES[module])


def test_walls__distributed_only_where_it_belongs():
    for path in FILES:
        if room_of(module_of(path)) in ("losses", "assign") and path.name != "balance.py":
            assert not uses(path, "torch.distributed"), path


def test_walls__environment_variables_are_read_in_three_places_and_set_in_one():
    users = {p.relative_to(PACKAGE).as_posix() for p in FILES if "os.environ" in p.read_text(encoding="utf-8")}
    # The commands set how long OpenMP threads spin, which has to happen before torch is loaded.
    assert users == {
        *("distributed/processes.py", "data/dataset.py", "commands/__init__.py"),
        "weights/named.py",  # cache folder and mirror
    }


def test_names__no_two_files_of_one_name():
    """Files of commands/ have the names of their tools."""
    names = Counter(p.name for p in FILES if p.name != "__init__.py" and p.parent.name != "commands")
    assert [name for name, count in names.items() if count > 1] == []


def test_docstrings__of_everything_public():
    """Modules, classes, functions and methods, but for methods that say no more than the class they override."""
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(ROOT)))
        nodes = [(node, False) for node in tree.body]
        nodes += [(m, bool(c.bases)) for c in tree.body if isinstance(c, ast.ClassDef) for m in c.body]
        for node, overrides in nodes:
            is_function = isinstance(node, ast.FunctionDef)
            if not (is_function or isinstance(node, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not (is_function and overrides):
                missing.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert missing == []


def test_sizes__files_and_experiments_stay_small():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
    for path in sorted((ROOT / "exps").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef)]
        assert cls.end_lineno - cls.lineno + 1 <= 25, path


def test_trainer__is_composed():
    """No class of train/ derives from another one there, but for callbacks from `Callback`."""
    own = {}
    for path in sorted((PACKAGE / "train").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                own[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    inherited = {name: [b for b in bases if b in own] for name, bases in own.items()}
    assert {base for bases in inherited.values() for base in bases} <= {"Callback", "Tracker"}
