"""A training run on disk: one that was killed goes on from it to the same bits. No pickle is run."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from tasks.core.distributed.world import World, shared

SUFFIX = ".ckpt"
KEPT = 2
DIGEST = hashlib.sha256().digest_size


class Stateful(Protocol):
    """What torch's modules, optimizers and schedules have in common."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save(
    folder: Path, parts: Mapping[str, Stateful], history: Sequence[Mapping[str, Any]], world: World
) -> None:
    """Write the checkpoint of the last epoch in `history`, in one step, so that it is always whole. The one before it
    stays as well, in case that the disk does not keep what it promised. The main rank writes, all have to call."""
    state = {name: part.state_dict() for name, part in parts.items()}
    if not world.main:
        return
    buffer = io.BytesIO()
    torch.save({**state, "history": list(history)}, buffer)
    content = buffer.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{len(history):06}{SUFFIX}"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in sorted(folder.glob(f"*{SUFFIX}"))[:-KEPT]:
        old.unlink()


def load(folder: Path, parts: Mapping[str, Stateful], world: World) -> list[dict[str, Any]]:
    """Set `parts`, on every rank, to what the newest good checkpoint on the main one holds, and say so; its history,
    empty where there is none."""
    content = shared(_newest(folder) if world.main else b"", world)
    if not content:
        return []
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    history: list[dict[str, Any]] = state["history"]
    if world.main:
        print(f"going on from the checkpoint of epoch {len(history)}", flush=True)
    return history


def _newest(folder: Path) -> bytes:
    """The newest checkpoint that is what was written; each that is not is named. Nothing where there is none."""
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        content = path.read_bytes()
        digest, content = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(content).digest() == digest:
            return content
        print(f"{path}: is damaged; going on from an older checkpoint, or from the beginning", flush=True)
    return b""
