"""The command `modelpress`. Nothing heavy is imported before it is needed: `--help` must be quick."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from flows import settings
from tasks.core.errors import BadInput, StageFailed

FASHION_MNIST = Path("data/raw/fashion-mnist")
SELECT, REPORT = Path("data/select"), Path("data/report/report.html")
EFFECTS = Path("data/ablate/effects.csv")
# As dvc.yaml has them for stage tune.
TUNE_WORKER = [
    "--data",
    "data/ingest",
    "--policy",
    "data/augment/policy.json",
    "--weights",
    "data/start",
    "--settings",
    "params.yaml",
]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command; exit with 0, 1 (a stage failed), 2 (bad input) or 130 (Ctrl-C)."""
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except BadInput as error:
        _exit(2, str(error))
    except StageFailed as error:
        _exit(1, str(error))
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `modelpress params | head`
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" writing {error.filename}" if error.filename else ""
        _exit(1, f"the disk is full{where}: free some space and run again")
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelpress",
        description="From labelled images to the smallest, fastest model within your accuracy bar.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    fetch = add("fetch", _fetch, "obtain a public data set")
    fetch.add_argument("dataset", choices=["fashion-mnist"])
    init = add("init", _init, "use your own images: a folder with a folder a class, or of IDX files")
    init.add_argument("path", type=Path)
    run = add("run", _run, "bring every stage up to date, register the selected model, show the candidates")
    run.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="[FILE:]KEY=VALUE",
        help="change params.yaml first, as dvc exp run -S does; can be repeated",
    )  # fmt: skip
    run.add_argument("-f", "--force", action="store_true", help="run every stage, changed or not")
    run.add_argument(
        "--retries", type=_count, default=1, metavar="N",
        help="how often a stage that was killed is tried again (default: %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--timeout", type=float, default=0, metavar="SECONDS", help="end a stage that takes longer"
    )
    add("ablate", _ablate, "what each technique gives on your data: every one on and off, at equal budget")
    worker = add("tune-worker", _tune_worker, "run trials of a search that another host leads")
    worker.add_argument(
        "--parallel", type=_count, default=0, metavar="N", help="trials side by side (default: tune.parallel)"
    )
    worker.add_argument(
        "--wait", type=float, default=60, metavar="SECONDS",
        help="for the search to be begun (default: %(default)s)",
    )  # fmt: skip
    predict = add("predict", _predict, "labels and probabilities of images, from a selected model")
    predict.add_argument("model", type=Path, help="model.onnx, with labels.json beside it")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    check = add("check", _check, "whether a model does on this machine what was promised of it")
    check.add_argument(
        "model", metavar="MODEL",
        help="model.onnx, with what stage select wrote beside it, or models:/NAME@champion in MLflow's registry",
    )  # fmt: skip
    check.description = (
        "Whether a model does on this machine what was promised of it. Accuracy holds if at least 99 % of its "
        "predictions on the bundled sample are the promised ones; speed holds if the speed-up over the dense "
        "model, one image on one thread, is at least 80 % of the promised one. Exits with 0 if both hold, "
        "with 1 otherwise."
    )
    params = add("params", _params, "every key of params.yaml: its type, default and value")
    status = add("status", _status, "what would run, and what the last run selected")
    for sub in (predict, check, params, status):
        sub.add_argument("--json", action="store_true", help="print JSON")
    add("deploy", _deploy, "register the deployments of prefect.yaml, schedules included")
    ui = add("ui", _ui, "serve Prefect's and MLflow's pages on this machine")
    for name, port in (("prefect", settings.PREFECT_PORT), ("mlflow", settings.MLFLOW_PORT)):
        ui.add_argument(f"--{name}-port", type=int, default=port, metavar="PORT", help="default: %(default)s")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more (got {text!r})")
    return int(text)


def _enter() -> Path:
    """Change to the checkout and set the tools' environment; the checkout."""
    root = settings.find_root(Path.cwd())
    os.chdir(root)
    settings.apply(root)
    signal.signal(signal.SIGTERM, _terminated)
    return root


def _fetch(args: argparse.Namespace) -> None:
    from tasks.fetch import fetch_fashion_mnist

    _enter()
    fetch_fashion_mnist(FASHION_MNIST, print)


def _init(args: argparse.Namespace) -> None:
    from flows import overrides

    path = Path(os.path.normpath(args.path.absolute()))
    root = _enter()
    if not path.is_dir():
        raise BadInput(f"{args.path}: no such folder" if not path.exists() else f"{args.path}: not a folder")
    if not any(path.iterdir()):
        raise BadInput(f"{args.path}: the folder is empty")
    source = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    overrides.write(root, {overrides.PARAMS: overrides.with_source(root, source)})
    print(f"params.yaml: ingest.source is now {source}")
    print("`modelpress run` packs these images, searches, trains, compresses and reports; other settings are")
    print("in params.yaml, and `modelpress params` lists them.")


def _run(args: argparse.Namespace) -> None:
    from flows import overrides
    from flows.lock import only_run

    root = _enter()
    params, changed = overrides.apply(root, args.set_param)
    _check_source(params.ingest.source)
    # Errors reach the terminal as one line of ours, and Prefect's UI in full.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    with only_run(root):
        overrides.write(root, changed)
        from flows import local

        done = local.run(
            root, force=args.force, retries=args.retries, timeout_s=args.timeout, watch=sys.stdout.isatty()
        )
    from flows import terminal

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


def _ablate(args: argparse.Namespace) -> None:
    from flows import local

    root = _enter()
    from tasks.core.params_file import load_pipeline

    _check_source(load_pipeline(Path("params.yaml")).ingest.source)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    done = local.ablate(root)
    from flows import terminal

    print()
    terminal.print_effects(EFFECTS)
    print(f"page: {done.message}")


def _tune_worker(args: argparse.Namespace) -> None:
    _enter()
    command = [sys.executable, "-m", "tasks.tune_worker", *TUNE_WORKER]
    command += ["--parallel", str(args.parallel), "--wait", str(args.wait)]
    os.execv(sys.executable, command)


def _predict(args: argparse.Namespace) -> None:
    from flows import terminal
    from flows.predict import TOP, as_json, predict

    found = predict(args.model, args.images)
    if args.json:
        terminal.print_json(as_json(found))
        return
    rows = [[str(p.image), *(f"{label}  {value:.1%}" for label, value in p.labels)] for p in found]
    ranks = ["label", *(["then"] * (TOP - 1))][: max(len(p.labels) for p in found)]
    terminal.table(["image", *ranks], rows, right=9)


def _check(args: argparse.Namespace) -> None:
    from flows import terminal
    from flows.check import as_json, check, rows

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


def _model(name: str) -> AbstractContextManager[Path]:
    """The file that `name` is, or a copy of the model that it is in MLflow's registry."""
    if not name.startswith("models:"):
        return nullcontext(Path(name))
    _enter()
    from flows import registry

    return registry.fetched(name)


def _params(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from flows import describe, terminal
    from tasks.core.params_file import load_pipeline

    _enter()
    keys = list(describe.keys(load_pipeline(Path("params.yaml"))))
    if args.json:
        terminal.print_json({key.pop("name"): key for key in map(asdict, keys)})
        return
    rows = [
        [k.name, str(k.value), "" if k.default is None else str(k.default), k.type, k.description]
        for k in keys
    ]
    terminal.table(["key", "value", "default", "type", "what it is"], rows, right=5)


def _status(args: argparse.Namespace) -> None:
    from flows import dag, terminal
    from tasks.core.files import read_json

    pending = [stage.name for stage in dag.read(_enter()).pending()]
    metrics = read_json(SELECT / "metrics.json") if (SELECT / "metrics.json").is_file() else None
    if args.json:
        terminal.print_json({"pending": pending, "selected": metrics})
        return
    print(f"would run: {', '.join(pending)}" if pending else "nothing would run: all stages are up to date")
    print(f"last selected: {terminal.selected(metrics)}" if metrics else "nothing selected yet")


def _deploy(args: argparse.Namespace) -> None:
    from flows import services

    services.deploy(_enter())
    print("deployed: `modelpress ui` shows the deployments and names the command that runs them")


def _ui(args: argparse.Namespace) -> None:
    from flows import services

    _enter()
    services.ui(args.prefect_port, args.mlflow_port)


def _terminated(*_: object) -> NoReturn:
    """SIGTERM unwinds like Ctrl-C: servers and children are ended."""
    raise SystemExit(143)


def _exit(code: int, message: str) -> NoReturn:
    print(f"modelpress: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
