"""Child processes that never outlive their parent.

Each child runs in a process group of its own under a small keeper (this file, run as a script), whose
standard input is a pipe held by the parent. When the pipe closes, because the parent says so or because
it was killed, the keeper ends the whole group: SIGTERM first, SIGKILL after a grace period.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

# torchrun needs up to 30 s to end its workers, which live in sessions of their own.
GRACE_S = 40.0


class Child:
    """A running command. A context manager: leaving it ends the command and all it started."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: int | IO[bytes] = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        grace_s: float = GRACE_S,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__).absolute()), str(grace_s), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,  # a Ctrl-C at the terminal reaches us only
        )
        self.pid = self._process.pid

    def lines(self) -> Iterator[str]:
        """The output, line by line as it comes; carriage returns end a line too."""
        assert self._process.stdout is not None
        pending = b""
        while block := os.read(self._process.stdout.fileno(), 65536):
            *whole, pending = (pending + block).replace(b"\r", b"\n").split(b"\n")
            yield from (line.decode(errors="replace") for line in whole if line.strip())
        if pending.strip():
            yield pending.decode(errors="replace")

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask the command and all it started to end. Returns at once; `wait` for the end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _keep(grace_s: float, command: list[str]) -> int:
    """The keeper: run `command`, end its group when standard input closes, pass its exit code on."""
    # What it sends to its group it receives too; a handler, unlike SIG_IGN, is not inherited.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        return 127

    def watch() -> None:
        """Wait until whoever started this is gone, and end the command with it."""
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGTERM)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    code = _keep(float(sys.argv[1]), sys.argv[2:])
    if code < 0:  # die of the same signal, so that the parent sees the same code
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
