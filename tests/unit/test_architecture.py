"""The rules of the tree: imports run one way, and a stage depends on all the code that it runs."""

import ast
import itertools
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OURS = ("flows", "tasks")
MODULES = sorted(p for package in OURS for p in (ROOT / package).rglob("*.py"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere; `from a import b` counts as a.b where that is a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def file_of(module: str) -> Path | None:
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return path if path.exists() else None


def closure(path: Path) -> set[Path]:
    """A file and all of ours that it imports, directly or not."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += [found for name in imports(current) if (found := file_of(name))]
    return seen


def templates(files: set[Path]) -> set[str]:
    """The templates that are named in `files`, and those that they include."""
    folder = ROOT / "tasks" / "templates"
    texts = [path.read_text(encoding="utf-8") for path in files]
    found: set[str] = set()
    while new := {p.name for p in folder.iterdir() if any(p.name in text for text in texts)} - found:
        found |= new
        texts = [(folder / name).read_text(encoding="utf-8") for name in new]
    return {f"tasks/templates/{name}" for name in found}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way_when_a_module_is_read(path: Path) -> None:
    module, used = name_of(path), imports(path)
    roots = {name.partition(".")[0] for name in used}
    ours = {name for name in used if name.partition(".")[0] in OURS and file_of(name)}
    if module.startswith("flows"):
        assert "torch" not in roots
        allowed = ("tasks.core.", "tasks.fetch", "flows.")
        assert all(name.startswith(allowed) for name in ours)
    else:
        assert not any(name.startswith("flows") for name in ours)
        assert not roots & {"prefect", "dvc"}
        assert all(name.startswith("tasks.core.") for name in ours), "a verb imports a verb, or core a verb"
    if module not in ("tasks.core.tracking", "tasks.core.registered", "flows.registry"):
        assert "mlflow" not in roots


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_import_closure_when_listed_in_dvc_yaml(stage: str) -> None:
    command = STAGES[stage]["cmd"].split()
    modules = [after for word, after in itertools.pairwise(command) if word == "-m"]
    files = {path for module in modules for path in closure(file_of(module))}
    needed = {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"}
    named = {dep for dep in STAGES[stage]["deps"] if dep.startswith("tasks/")}
    assert named == needed | templates(files)
