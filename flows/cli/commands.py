"""What each command does. Nothing heavy is imported before it is needed: `--help` must be quick."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from flows.engine import settings
from tasks.core.common.errors import BadInput, StageFailed

FASHION_MNIST = Path("data/raw/fashion-mnist")
SELECT, REPORT = Path("data/select"), Path("data/report/report.html")
RECIPE = Path("data/recipe/params.yaml")
_SHOWN = 60  # characters of a text or a path in a table
_FORBIDDEN = re.compile(r"[/:.%\"']+")  # in the name of a registered model
EFFECTS = Path("data/ablate/effects.csv")
# As dvc.yaml has them for stage tune.
TUNE_WORKER = [
    "--params",
    str(RECIPE),
    "--data",
    "data/ingest",
    "--policy",
    "data/augment/policy.json",
    "--weights",
    "data/start",
]


def _enter() -> Path:
    """Change to the checkout and set the tools' environment; the checkout."""
    root = settings.find_root(Path.cwd())
    os.chdir(root)
    settings.apply(root)
    signal.signal(signal.SIGTERM, _terminated)
    return root


def fetch(args: argparse.Namespace) -> None:
    """`modelpress fetch`: the raw data of the main job."""
    from tasks.fetch import fetch_fashion_mnist

    _enter()
    fetch_fashion_mnist(FASHION_MNIST, print)


def init(args: argparse.Namespace) -> None:
    """`modelpress init`: say what the images are, and name them, and the project after them, in params.yaml."""
    from flows.cli import overrides
    from flows.cli.found import look, source_of
    from flows.cli.pace import sentence
    from flows.engine.hashable import check_hashable

    path = Path(os.path.normpath(args.path.absolute()))
    root = _enter()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadInput(
            f"{os.fsencode(path)!r}: not UTF-8, so params.yaml cannot hold it: rename it"
        ) from None
    source, labels = source_of(path)
    within = source.relative_to(root).as_posix() if source.is_relative_to(root) else str(source)
    name = args.name or _FORBIDDEN.sub("-", _stem(source)) or "images"
    content = overrides.with_project(root, within, labels, name)
    print(f"{within}:", *look(source, labels), sep="\n  ", flush=True)
    check_hashable(source)
    overrides.write(root, {overrides.PARAMS: content})
    print(f"params.yaml: ingest.source is now {within}, registry.name and report.title {name}")
    print(
        "What follows the data (architecture, augmentations, learning rate, lengths) is `auto` now: the run settles it by"
    )
    print("short trials. A value that you set by hand stays; `modelpress params` lists all of them.")
    print(sentence())


def _stem(source: Path) -> str:
    """The name of a folder, or that of an archive without its endings."""
    return source.name if source.is_dir() else source.name.partition(".")[0]


def run(args: argparse.Namespace) -> None:
    """`modelpress run`: the pipeline, after what was asked for is in params.yaml."""
    from flows.cli import overrides
    from flows.engine.lock import only_run

    root = _enter()
    budget = [f"recipe.budget={args.budget}"] if args.budget else []
    asked, changed = overrides.apply(root, [*args.set_param, *budget])
    if budget and not asked.auto:
        raise BadInput("--budget: nothing in params.yaml is auto; modelpress init PATH makes it so")
    _check_source(asked.pipeline.ingest.source)
    # Errors reach the terminal as one line of ours, and Prefect's UI in full.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    with only_run(root):
        overrides.write(root, changed)
        from flows.cli import local

        done = local.run(
            root, force=args.force, retries=args.retries, timeout_s=args.timeout, watch=sys.stdout.isatty()
        )
    from flows.cli import terminal

    print()
    terminal.print_candidates(SELECT)
    if REPORT.is_file():
        print(f"report: {REPORT}")
    print(f"all runs: make ui (this one: {done.page})")
    print(done.message)


def _check_source(source: str) -> None:
    path = Path(source)
    if path.exists():
        return
    hint = (
        "modelpress fetch fashion-mnist obtains it"
        if path == FASHION_MNIST
        else "modelpress init PATH sets it"
    )
    raise BadInput(f"params.yaml: ingest.source: {source}: no such file or folder; {hint}")


def ablate(args: argparse.Namespace) -> None:
    """`modelpress ablate`: what each technique is worth."""
    from flows.cli import local

    root = _enter()
    from tasks.core.config.params_file import load_asked

    _check_source(load_asked(Path("params.yaml")).pipeline.ingest.source)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    done = local.ablate(root)
    from flows.cli import terminal

    print()
    terminal.print_effects(EFFECTS)
    print(f"page: {done.message}")


def tune_worker(args: argparse.Namespace) -> None:
    """`modelpress tune-worker`: help a search that another host leads."""
    _enter()
    command = [sys.executable, "-m", "tasks.tune_worker", *TUNE_WORKER]
    command += ["--parallel", str(args.parallel), "--wait", str(args.wait)]
    os.execv(sys.executable, command)


def predict(args: argparse.Namespace) -> None:
    """`modelpress predict`: the classes of images or texts, by a file or a registered model."""
    from flows.cli import terminal
    from flows.cli.predict import TOP, as_json, predict

    with _model(args.model) as model:
        found = predict(model, args.given, args.file)
    if args.json:
        terminal.print_json(as_json(found))
        return
    rows = []
    for p in found:
        first, *others = (f"{label}  {value:.1%}" for label, value in p.labels)
        shown = p.given if len(p.given) <= _SHOWN else f"{p.given[: _SHOWN - 1]}…"
        rows.append([shown, f"unsure: {first}" if p.unsure else first, *others])
    ranks = ["label", *(["then"] * (TOP - 1))][: max(len(p.labels) for p in found)]
    terminal.table(["", *ranks], rows, right=9)


def check(args: argparse.Namespace) -> None:
    """`modelpress check`: whether what a model promises holds on this machine."""
    from flows.cli import terminal
    from flows.registry.gate import as_json, check, rows

    with _model(args.model) as model:
        checked = check(model)
    if args.json:
        terminal.print_json(as_json(checked))
    else:
        terminal.table(["", "promised", "here", "holds"], rows(checked))
        print()
    if not checked.holds:
        raise StageFailed(checked.verdict)
    if not args.json:
        print(checked.verdict)


@contextmanager
def _model(name: str) -> Iterator[Path]:
    """The file that `name` is, or a copy of the model that it is in MLflow's registry."""
    if not name.startswith("models:"):
        yield Path(name)
        return
    here = Path.cwd()
    _enter()
    from flows.registry.register import fetched

    with fetched(name) as model:
        os.chdir(here)  # where the other files that were named are
        yield model


def params(args: argparse.Namespace) -> None:
    """`modelpress params`: every parameter, and what it is now."""
    from dataclasses import asdict

    from flows.cli import describe, terminal
    from tasks.core.config.params_file import load_asked, read_yaml

    _enter()
    settled = read_yaml(RECIPE) if RECIPE.is_file() else None
    keys = list(describe.keys(load_asked(Path("params.yaml")), settled))
    if args.json:
        terminal.print_json({key.pop("name"): key for key in map(asdict, keys)})
        return
    rows = [
        [k.name, _now(k.value, k.settled), "" if k.default is None else str(k.default), k.type, k.description]
        for k in keys
    ]
    terminal.table(["key", "value", "default", "type", "what it is"], rows, right=5)


def _now(value: object, settled: object) -> str:
    return str(value) if settled is None else f"{value}: {settled}"


def status(args: argparse.Namespace) -> None:
    """`modelpress status`: what a run would do, and what the last one selected."""
    from flows.cli import terminal
    from flows.engine import dag
    from flows.selection import selected
    from tasks.core.common.files import read_json
    from tasks.core.config.params_file import load_asked

    root = _enter()
    load_asked(Path("params.yaml"))
    pending = [stage.name for stage in dag.read(root).pending()]
    metrics = read_json(SELECT / "metrics.json") if (SELECT / "metrics.json").is_file() else None
    if args.json:
        terminal.print_json({"pending": pending, "selected": metrics})
        return
    print(f"would run: {', '.join(pending)}" if pending else "nothing would run: all stages are up to date")
    print(f"last selected: {selected(metrics)}" if metrics else "nothing selected yet")


def deploy(args: argparse.Namespace) -> None:
    """`modelpress deploy`: register the deployments and their schedules."""
    from flows.serving import services
    from tasks.core.config.params_file import load_asked

    root = _enter()
    load_asked(Path("params.yaml"))
    services.deploy(root)
    print("deployed: `modelpress ui` shows the deployments and names the command that runs them")


def ui(args: argparse.Namespace) -> None:
    """`modelpress ui`: the servers of Prefect and MLflow, until they are stopped."""
    from flows.serving import services

    _enter()
    services.ui(args.prefect_port, args.mlflow_port)


def _terminated(*_: object) -> NoReturn:
    """SIGTERM unwinds like Ctrl-C: servers and children are ended."""
    raise SystemExit(143)
