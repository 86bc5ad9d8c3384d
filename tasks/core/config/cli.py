"""A command line from the signature of a stage's function.

    def prune(params: PruneParams, model: Path, data: Path, out: Path) -> None: ...
    if __name__ == "__main__": main(prune)

gives `python -m tasks.prune --model PATH --data PATH --out PATH [--params params.yaml]`. `params` is
the section named like the function; `settings`, if it takes that, is the file itself, unless another one is named;
`out` appears only when the function has ended well.
"""

from __future__ import annotations

import argparse
import errno
import gc
import inspect
import os
import signal
import sys
import time
import typing
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import staged, write_json
from tasks.core.config.params_file import load_section

LAID_OVER = "laid_over"


def main(stage: Callable[..., None], section: str | None = None) -> None:
    """Run `stage` from sys.argv; exit with 0, 1 (it failed) or 2 (bad input), without a traceback
    for what was foreseen. `section` is that of params.yaml, if it is not called like the stage."""
    gc.freeze()  # what imports have made stays: no collection need look at it, nor the last one, which takes a second
    signal.signal(signal.SIGTERM, _terminated)
    name = stage.__name__
    args = _parser(stage).parse_args()
    given: dict[str, Any] = {k: v for k, v in vars(args).items() if k not in ("params", LAID_OVER)}
    try:
        given["params"] = load_section(section or name, args.params, getattr(args, LAID_OVER, None))
        if given.get("settings", args) is None:
            given["settings"] = args.params
        # Of the ranks that torchrun starts on a host only the first writes.
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        if "out" not in given:
            stage(**given)
            return
        with staged(given["out"]) if first else nullcontext(given["out"]) as given["out"]:
            stage(**given)
    except BadInput as error:
        _exit(2, f"{name}: {error}")
    except StageFailed as error:
        _exit(1, f"{name}: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" writing {error.filename}" if error.filename else ""
        _exit(1, f"{name}: the disk is full{where}: free some space and run again")
    finally:
        gc.freeze()
        # It ends already; raised while the interpreter winds up, SystemExit would be reported as a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _parser(stage: Callable[..., None]) -> argparse.ArgumentParser:
    doc = (inspect.getdoc(stage) or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m tasks.{stage.__name__}", description=doc)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    hints = typing.get_type_hints(stage)
    for name, parameter in inspect.signature(stage).parameters.items():
        if name == "params":
            continue
        optional = parameter.default is not parameter.empty or name == "settings"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_reader(hints[name]),
            required=not optional,
            default=None if parameter.default is parameter.empty else parameter.default,
        )
    if stage.__name__ == "train":
        help_ = "best.yaml of tune, laid over the section"
        parser.add_argument("--best", dest=LAID_OVER, type=Path, help=help_)
    return parser


def _reader(hint: Any) -> Callable[[str], Any]:
    for kind in (hint, *typing.get_args(hint)):
        if kind in (Path, str, int, float):
            return typing.cast(Callable[[str], Any], kind)
    raise TypeError(f"no command line for {hint}")


def _terminated(*_: object) -> NoReturn:
    """SIGTERM unwinds like Ctrl-C, so that nothing half-written stays."""
    raise SystemExit(143)


def _exit(code: int, message: str) -> NoReturn:
    """Say why and end. Several ranks may have the same to say: torchrun is left it, and says it once."""
    left = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if left:
        write_json(Path(left), {"message": message, "timestamp": int(time.time())})
    else:
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)
