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

# Which package may import which: the rule stands here and nowhere else in code. What a package may import may
# import nothing that it may not (each row is checked to be closed), so that the arrows cannot run in a circle.
GROUND = {"common"}
DATA = GROUND | {"config", "data"}
TRAINING = DATA | {"augmentation", "models", "distributed", "training"}
COMPRESSING = TRAINING | {"runtime"}
ARROWS = {
    "tasks.core": {
        "common": set(),
        "config": GROUND,
        "data": GROUND | {"config"},
        "augmentation": DATA,
        "models": DATA,
        "distributed": DATA | {"models"},
        "runtime": DATA | {"models"},
        "training": TRAINING - {"training"},
        "evaluation": DATA,
        "pruning": COMPRESSING,
        "quantization": COMPRESSING | {"evaluation"},
        "tuning": TRAINING,
        "auto": TRAINING | {"evaluation"},
        "compression": COMPRESSING | {"evaluation", "pruning", "quantization"},
        "ablation": DATA | {"evaluation"},
        "reporting": DATA | {"evaluation"},
        "tracking": DATA | {"evaluation", "reporting"},
    },
    "flows": {
        "engine": set(),
        "serving": {"engine"},
        "registry": {"engine"},
        "cli": {"engine", "serving", "registry"},
    },
}


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


def dependency(path: Path) -> str:
    """As dvc.yaml names it: the package that a file lies in, or the file itself right below tasks/."""
    relative = path.relative_to(ROOT)
    return (relative if len(relative.parts) == 2 else relative.parent).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way_when_a_module_is_read(path: Path) -> None:
    module, used = name_of(path), imports(path)
    roots = {name.partition(".")[0] for name in used}
    ours = {name for name in used if name.partition(".")[0] in OURS and file_of(name)}
    if module.startswith("flows"):
        assert "torch" not in roots
        assert all(name.startswith(("tasks.core.", "tasks.fetch", "flows.")) for name in ours)
    else:
        assert not any(name.startswith("flows") for name in ours)
        assert not roots & {"prefect", "dvc"}
        assert all(name.startswith("tasks.core.") for name in ours), "a verb imports a verb, or core a verb"
    if not module.startswith(("tasks.core.tracking.", "flows.registry.")):
        assert "mlflow" not in roots


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_import_along_the_arrows_when_a_module_is_read(path: Path) -> None:
    for tree, arrows in ARROWS.items():
        package, _, module = name_of(path).removeprefix(f"{tree}.").partition(".")
        if not name_of(path).startswith(f"{tree}.") or not module or package not in arrows:
            continue
        used = [name.removeprefix(f"{tree}.") for name in imports(path) if name.startswith(f"{tree}.")]
        named = {name.partition(".")[0] for name in used}
        assert named & set(arrows) <= arrows[package] | {package}
        # What lies beside the packages of flows are the flows themselves, which only the command line starts.
        beside = {name for name in used if (path.parents[1] / f"{name}.py").exists()}
        assert not beside or package == "cli"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_short_when_its_lines_are_counted(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("tree", ARROWS)
def test_table_of_arrows_is_whole_and_closed_when_held_against_the_folders(tree: str) -> None:
    arrows = ARROWS[tree]
    folders = {path.parent for path in (ROOT / tree.replace(".", "/")).glob("*/__init__.py")}
    assert {folder.name for folder in folders} == set(arrows)
    assert all(len(list(folder.glob("*.py"))) > 2 for folder in folders), "a package of one file"
    for package, allowed in arrows.items():
        assert package not in allowed
        assert all(arrows[other] <= allowed for other in allowed), package


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_import_closure_when_listed_in_dvc_yaml(stage: str) -> None:
    command = STAGES[stage]["cmd"].split()
    modules = [after for word, after in itertools.pairwise(command) if word == "-m"]
    files = {path for module in modules for path in closure(file_of(module))}
    needed = {dependency(path) for path in files if path.name != "__init__.py"}
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith("tasks/")} == needed
