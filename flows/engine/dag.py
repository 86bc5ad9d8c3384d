"""The graph of stages, as DVC sees it; dvc.yaml is the only place where it is written."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.engine.hashable import check_hashable
from tasks.core.common.errors import BadInput

LOCK = "dvc.lock"
# Matrix stages write a folder a candidate under these, and later stages depend on the whole of each.
MATRIX_FOLDERS = (Path("data/prune"), Path("data/quantize"))


@dataclass(frozen=True)
class Stage:
    """A node of the graph.

    Attributes:
        name: DVC's address of it: `train`, `prune@0.5`, or the path of a .dvc file.
        after: names of the stages whose outputs it reads.
        outs: its outputs, relative to the checkout (absolute if they lie outside).
        changed: whether DVC would run or restore it as things stand, before anything else runs.
        cores: how many it keeps busy, by `meta: {cores: N}` in dvc.yaml; None is all that there are.
    """

    name: str
    after: tuple[str, ...]
    outs: tuple[Path, ...]
    changed: bool
    cores: int | None = None

    @property
    def tracks_data(self) -> bool:
        """Whether it is a .dvc file: data under version control, that no command makes."""
        return self.name.endswith(".dvc")


@dataclass(frozen=True)
class Plan:
    """The stages in an order in which they can run, the stale folders that were removed, and the stages
    that dvc.lock holds, in its order."""

    stages: tuple[Stage, ...]
    removed: tuple[Path, ...] = ()
    locked: tuple[str, ...] = ()

    def pending(self) -> list[Stage]:
        """The stages that DVC has to be asked to run or restore: the changed ones and all after them."""
        names: set[str] = set()
        for stage in self.stages:
            if stage.changed or names.intersection(stage.after):
                names.add(stage.name)
        return [stage for stage in self.stages if stage.name in names]


def read(root: Path, *, clean: bool = False) -> Plan:
    """The stages of dvc.yaml and all that they depend on.

    DVC is asked once, in this process, and holds its lock meanwhile.

    Args:
        root: the checkout.
        clean: first remove the folders of candidates that are no longer in params.yaml.

    Raises:
        BadInput: dvc.yaml or params.yaml cannot be read, this is no DVC repository, or data hold what DVC cannot hash.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo
    from dvc.repo.reproduce import get_active_graph, plan_repro
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            _drop_broken_rwlock(Path(repo.tmp_dir))
            graph = get_active_graph(repo.index.graph)
            steps = plan_repro(graph, list(repo.stage.collect(str(root / "dvc.yaml"))))
            outs = {_name(root, step): _outs(root, step) for step in steps}
            known = {out for paths in outs.values() for out in paths}
            for path in _given(steps):
                check_hashable(path)
            removed = _remove_stale(root, known) if clean else ()
            return Plan(
                stages=tuple(
                    Stage(
                        name=_name(root, step),
                        after=tuple(sorted(_name(root, s) for s in graph.successors(step))),
                        outs=outs[_name(root, step)],
                        changed=step.changed(),
                        cores=_cores_of(root, step),
                    )
                    for step in steps
                ),
                removed=removed,
                locked=tuple(_entries(root)),
            )
    except SCMError:
        mend = "`git init -q` and `git add -A && git commit -qm modelpress` make it one"
        raise BadInput(f"{root}: no git repository, as a downloaded archive is none: {mend}") from None
    except DvcException as error:
        raise BadInput(one_line(error)) from None


def locked(root: Path) -> dict[str, dict[str, Any]]:
    """What dvc.lock holds of each stage, by its name.

    DVC rewrites the file in place at the end of every stage, and siblings end at any time: who reads without DVC's
    lock finds half of it now and then.
    """
    from dvc.repo import Repo, lock_repo

    with Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
        return _entries(root)


def settle_lock(root: Path, plan: Plan) -> None:
    """Put the stages in dvc.lock into the order that `dvc repro` gives: DVC adds a new one at the end, and
    siblings that run at the same time end in any order.

    Args:
        root: the checkout, with no DVC command at work.
        plan: as it was read before the stages ran.
    """
    new = [stage.name for stage in plan.stages if stage.name not in plan.locked]
    found = list(_entries(root))
    wanted = [name for name in [*plan.locked, *new] if name in found]
    wanted += [name for name in found if name not in wanted]
    if found == wanted:
        return
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(root / LOCK)) as content:
        stages = content["stages"]
        for name in wanted:
            stages.move_to_end(name)


def _drop_broken_rwlock(folder: Path) -> None:
    """Remove DVC's list of who reads and writes what, if a process that was killed has left half of it: no DVC
    command would run any more. DVC writes it in place, but only while it holds the lock that `read` holds."""
    path = folder / "rwlock"
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        path.unlink()


def _entries(root: Path) -> dict[str, dict[str, Any]]:
    path = root / LOCK
    if not path.is_file():
        return {}
    return yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader).get("stages") or {}


def one_line(error: BaseException) -> str:
    """An error of DVC and what caused it, on one line."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = " ".join(str(current).split())
        if text and text not in ": ".join(parts):
            parts.append(text)
        current = current.__cause__
    return ": ".join(parts)


def _name(root: Path, step: Any) -> str:
    """DVC's address of a stage, seen from `root`."""
    path, name = Path(step.path), getattr(step, "name", None)
    if name and path == root / "dvc.yaml":
        return str(name)
    place = path.relative_to(root).as_posix()
    return f"{place}:{name}" if name else place


def _cores_of(root: Path, step: Any) -> int | None:
    meta = getattr(step, "meta", None)
    cores = meta.get("cores") if isinstance(meta, dict) else None
    if cores is not None and (not isinstance(cores, int) or isinstance(cores, bool) or cores < 1):
        name = _name(root, step)
        raise BadInput(f"dvc.yaml: {name}: meta.cores must be a whole number above 0 (got {cores!r})")
    return cores


def _outs(root: Path, step: Any) -> tuple[Path, ...]:
    paths = [Path(out.fs_path) for out in step.outs]
    return tuple(sorted(path.relative_to(root) if path.is_relative_to(root) else path for path in paths))


def _given(steps: list[Any]) -> list[Path]:
    """The folders that stages read and no command makes."""
    read = {Path(dep.fs_path) for step in steps for dep in step.deps if dep.protocol == "local"}
    made = [Path(out.fs_path) for step in steps if step.cmd for out in step.outs]
    return sorted(
        path for path in read if path.is_dir() and not any(path.is_relative_to(out) for out in made)
    )


def _remove_stale(root: Path, known: set[Path]) -> tuple[Path, ...]:
    """Remove what DVC made for a candidate that is in the graph no more: DVC leaves it there, and a stage
    that depends on the whole folder would take it for a candidate."""
    stale = [
        Path(entry.relative_to(root))
        for folder in MATRIX_FOLDERS
        if any(out.is_relative_to(folder) and out != folder for out in known)
        for entry in sorted((root / folder).glob("*"))
        if entry.is_dir() and not any(out.is_relative_to(entry.relative_to(root)) for out in known)
    ]
    for path in stale:
        shutil.rmtree(root / path)
    return tuple(stale)
