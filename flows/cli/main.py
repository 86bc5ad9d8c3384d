"""The command `modelpress`. Nothing heavy is imported before it is needed: `--help` must be quick."""

from __future__ import annotations

import argparse
import errno
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flows.cli import commands
from flows.engine import settings
from tasks.core.common.errors import BadInput, StageFailed


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
    finally:
        gc.freeze()  # the last collection would take half a second to find what the imports have made
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelpress",
        description="From labelled images or texts to the smallest, fastest model within your accuracy bar.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: object, text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    fetch = add("fetch", commands.fetch, "obtain a public data set")
    fetch.add_argument("dataset", choices=["fashion-mnist"])
    init = add(
        "init", commands.init, "use your own images or texts: say what they are, and set params.yaml to them"
    )
    init.add_argument(
        "path", type=Path,
        help="a folder with a folder a class, a zip or tar of one, a CSV or JSON of file names and labels beside "
        "images, or a folder of IDX files; or a CSV, TSV, JSON or Parquet file of labelled texts",
    )  # fmt: skip
    init.add_argument(
        "--name", help="of the registered model, and the report's title (default: the folder's)"
    )
    run = add(
        "run", commands.run, "bring every stage up to date, register the selected model, show the candidates"
    )
    _run_options(run)
    add(
        "ablate",
        commands.ablate,
        "what each technique gives on your data: every one on and off, at equal budget",
    )
    worker = add("tune-worker", commands.tune_worker, "run trials of a search that another host leads")
    worker.add_argument(
        "--parallel", type=_count, default=0, metavar="N", help="trials side by side (default: tune.parallel)"
    )
    worker.add_argument(
        "--wait", type=float, default=60, metavar="SECONDS",
        help="for the search to be begun (default: %(default)s)",
    )  # fmt: skip
    predict = add(
        "predict", commands.predict, "labels and probabilities of images or texts, from a selected model"
    )
    _predict_options(predict)
    check = add("check", commands.check, "whether a model does on this machine what was promised of it")
    _check_options(check)
    params = add("params", commands.params, "every key of params.yaml: its type, default and value")
    status = add("status", commands.status, "what would run, and what the last run selected")
    for sub in (predict, check, params, status):
        sub.add_argument("--json", action="store_true", help="print JSON")
    add("deploy", commands.deploy, "register the deployments of prefect.yaml, schedules included")
    ui = add("ui", commands.ui, "serve Prefect's and MLflow's pages on this machine")
    for name, port in (("prefect", settings.PREFECT_PORT), ("mlflow", settings.MLFLOW_PORT)):
        ui.add_argument(f"--{name}-port", type=int, default=port, metavar="PORT", help="default: %(default)s")
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="[FILE:]KEY=VALUE",
        help="change params.yaml first, as dvc exp run -S does; can be repeated",
    )  # fmt: skip
    run.add_argument(
        "--budget", choices=["quick", "normal", "thorough"],
        help="compute for what is auto in params.yaml: about 4, 25 or 60 minutes on two cores; stays set",
    )  # fmt: skip
    run.add_argument("-f", "--force", action="store_true", help="run every stage, changed or not")
    run.add_argument(
        "--retries", type=_count, default=1, metavar="N",
        help="how often a stage that was killed is tried again (default: %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--timeout", type=float, default=0, metavar="SECONDS", help="end a stage that takes longer"
    )


def _predict_options(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "model", metavar="MODEL",
        help="model.onnx, with labels.json beside it, or models:/NAME@champion in MLflow's registry",
    )  # fmt: skip
    predict.add_argument("given", nargs="*", metavar="IMAGE|TEXT", help="image files, or texts in quotes")
    predict.add_argument("--file", type=Path, metavar="FILE", help="of texts, one a line")


def _check_options(check: argparse.ArgumentParser) -> None:
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


class _Version(argparse.Action):
    """As argparse's own, but what knows the version is not imported for every command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"modelpress {version('modelpress')}")
        parser.exit()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more (got {text!r})")
    return int(text)


def _exit(code: int, message: str) -> NoReturn:
    print(f"modelpress: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
