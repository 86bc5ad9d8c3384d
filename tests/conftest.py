"""What all tests share: the repository's root, and small real data."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.integration.toy import make_databases, make_toy, run

ROOT = Path(__file__).parents[1]
INTEGRATION = ROOT / "tests" / "integration"

# DVC reports each of its commands to its makers, in a process of its own that takes a second.
os.environ["DVC_NO_ANALYTICS"] = "1"

# What is made once for all processes of a session: workers of pytest-xdist find the folder of the one that began them.
if "MODELPRESS_TESTS" not in os.environ:
    _shared = tempfile.TemporaryDirectory()
    os.environ["MODELPRESS_TESTS"] = _shared.name

CORES = sorted(os.sched_getaffinity(0))


def keep_to_a_core(worker: str, taken: Path) -> None:
    """Keep a worker of pytest-xdist, and what it starts, on the core that the fewest others are on.

    Trainings that share cores with others wait for each other's threads at every step, tens of times longer than they
    compute. `taken` holds a file WORKER-CORE for each worker that has not ended yet.
    """
    taken.mkdir(exist_ok=True)
    cores = {name: int(core) for name, core in (path.name.split("-") for path in taken.iterdir())}
    own = cores.pop(worker, None)
    others = Counter(cores.values())
    core = min(CORES, key=lambda each: (others[each], each != own))
    if own is None:
        (taken / f"{worker}-{core}").touch()
    elif core != own:
        (taken / f"{worker}-{own}").rename(taken / f"{worker}-{core}")
    os.sched_setaffinity(0, {core})


WORKER = os.environ.get("PYTEST_XDIST_WORKER")
TAKEN = Path(os.environ["MODELPRESS_TESTS"]) / "cores"
if WORKER:
    keep_to_a_core(WORKER, TAKEN)  # before torch counts them


def pytest_sessionfinish() -> None:
    for path in TAKEN.glob(f"{WORKER}-*"):
        path.unlink()


# A child finds the same interpreter and tools.
os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"


# The files that take longest (pytest --durations=0), the longest first: one of them at the end would keep a single core
# busy while the others wait.
LONGEST = (
    "pipeline",
    "tuning",
    "docs",
    "texts",
    "servers",
    "torchrun",
    "ablate",
    "flow",
    "registry",
    "hosts",
    "schedule",
    "export",
    "search",
    "ranks",
    "static",
    "front_page",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what fails in a moment is told in a moment. What lies in integration starts processes."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker("slow")
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is not None,
            ranks.get(item.path.stem, len(LONGEST)),
        )
    )


def pytest_collection_finish() -> None:
    """What imports have made stays: no collection of a test need look at it."""
    gc.freeze()


_fast_test = ""  # the name of the one that runs now, if it is not marked slow


def _refuse_processes(event: str, _: tuple[object, ...]) -> None:
    if _fast_test and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        raise RuntimeError(f"{_fast_test} starts a process: mark it slow")


sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What `make fast` runs starts no process, and so no server."""
    global _fast_test
    if WORKER:
        keep_to_a_core(WORKER, TAKEN)
    _fast_test = "" if item.get_closest_marker("slow") else item.nodeid
    try:
        return (yield)
    finally:
        _fast_test = ""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder for reading only, which the first worker that needs it makes for all."""
    folder = Path(os.environ["MODELPRESS_TESTS"]) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a worker that failed
            make(part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def digits() -> Path:
    """scikit-learn's 1,797 handwritten digits (8x8 grey) as an image folder, CLASS/NUMBER.png."""

    def make(folder: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            target = folder / f"digit {label}"
            target.mkdir(exist_ok=True, parents=True)
            picture = Image.fromarray((pixels.reshape(8, 8) * 15.9375).astype(np.uint8))
            picture.resize((16, 16), Image.Resampling.BILINEAR).save(target / f"{i}.png")

    return made_once("digits", make)


@pytest.fixture(scope="session")
def databases() -> Path:
    """`prefect`, a home, and `mlflow.db`, both without a run: to make them takes ten seconds."""
    return made_once("databases", make_databases)


@pytest.fixture(scope="session")
def fresh(databases: Path) -> Path:
    """A toy DVC project in which nothing has run. `toy` is a copy."""

    def make(folder: Path) -> None:
        make_toy(folder)
        shutil.copytree(databases / "prefect", folder / ".modelpress/prefect")
        shutil.copy(databases / "mlflow.db", folder)

    return made_once("fresh", make)


@pytest.fixture(scope="session")
def reproduced(fresh: Path) -> Path:
    """The toy project after `dvc repro`. `done` is a copy."""

    def make(folder: Path) -> None:
        shutil.copytree(fresh, folder)
        run([sys.executable, "-m", "dvc", "repro", "-q"], folder)

    return made_once("reproduced", make)


@pytest.fixture
def toy(fresh: Path, tmp_path: Path) -> Path:
    shutil.copytree(fresh, tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def done(reproduced: Path, tmp_path: Path) -> Path:
    shutil.copytree(reproduced, tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes params.yaml with the given sections."""

    def write(**sections: object) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps({"ingest": {"source": "unused"}, **sections}), encoding="utf-8")
        return path

    return write
