"""Training on two hosts: network namespaces with addresses of their own, joined by a cable that a test can pull."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.project import with_params

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="makes network namespaces: needs root"
    ),
]
HOSTS = {"mp-one": "10.77.0.1", "mp-two": "10.77.0.2"}
ENDS = {"mp-one": "mp-a", "mp-two": "mp-b"}  # of the cable
PORT = 29511
EPOCHS = 10
NOTICED_S = 75  # gloo's 30 s, and what torchrun takes to end its workers


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def cable(state: str) -> None:
    ip("-n", "mp-one", "link", "set", ENDS["mp-one"], state)


def take_down() -> None:
    """With a namespace goes its end of the cable, and with that the other end."""
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[None]:
    take_down()  # what a killed run of this test has left
    ip("link", "add", ENDS["mp-one"], "type", "veth", "peer", "name", ENDS["mp-two"])
    try:
        for host, address in HOSTS.items():
            end = ENDS[host]
            ip("netns", "add", host)
            ip("link", "set", end, "netns", host)
            ip("-n", host, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", host, "link", "set", end, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        take_down()


@contextmanager
def reproducing(folders: dict[str, Path], *stages: str) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The same command on each host, in a checkout of its own; killed in the end."""
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for rank, (host, address) in enumerate(HOSTS.items()):
            running[host] = subprocess.Popen(
                ["ip", "netns", "exec", host, sys.executable, "-m", "dvc", "repro", *stages],
                cwd=folders[host],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "GLOO_SOCKET_IFNAME": ENDS[host],
                    "PET_NNODES": "2",
                    "PET_RDZV_BACKEND": "c10d",
                    "PET_RDZV_ENDPOINT": f"{HOSTS['mp-one']}:{PORT}",
                    # Both namespaces have the name of this machine, which says nothing of addresses.
                    "PET_LOCAL_ADDR": address,
                    "PET_RDZV_CONF": f"is_host={1 - rank},join_timeout=60",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        yield running
    finally:
        for process in running.values():
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """With the workers, which are sessions of their own."""
    import psutil

    if process.poll() is None:
        for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            child.send_signal(signal.SIGKILL)
    process.wait()


def test_training_fails_in_one_line_and_goes_on_when_a_host_is_cut_off(
    hosts: None, prepared: Path, tmp_path: Path
) -> None:
    folders = {host: tmp_path / host for host in HOSTS}
    for folder in folders.values():
        shutil.copytree(prepared, folder)
        with_params(folder, tune={"trials": 0}, train={"epochs": EPOCHS})
    with reproducing(folders, "train") as running:
        one = running["mp-one"]
        assert one.stdout is not None
        said = []
        for line in one.stdout:
            said.append(line)
            if line.startswith("train 2/"):
                break
        else:
            raise AssertionError("".join(said))
        cable("down")
        cut = time.monotonic()
        said = one.communicate(timeout=NOTICED_S)[0]
        assert time.monotonic() - cut < NOTICED_S
        assert one.returncode != 0
        cable("up")
        running["mp-two"].communicate(timeout=NOTICED_S)
        assert running["mp-two"].returncode != 0
    ours = [line for line in said.splitlines() if line.startswith("train: ")]
    assert len(ours) == 1
    assert "rank 0 of 2: another rank is gone, or has not answered for 30 s" in ours[0]
    assert "Traceback" not in said
    with reproducing(folders, "prune") as running:
        said, other = (running[host].communicate(timeout=240)[0] for host in HOSTS)
        assert all(process.returncode == 0 for process in running.values()), said + other
    resumed = re.findall(r"^going on from the checkpoint of epoch (\d+)$", said, re.MULTILINE)
    assert resumed and int(resumed[0]) >= 2
    for network in ("train", "prune/0.5"):
        one, two = (
            (folder / f"data/{network}/model.safetensors").read_bytes() for folder in folders.values()
        )
        assert one == two, "each host has what all of them have trained"
