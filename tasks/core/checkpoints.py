"""A training run on disk: one that was killed goes on from it to the same bits. No pickle is run."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """What torch's modules, optimizers and schedules have in common."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save(path: Path, parts: Mapping[str, Stateful], history: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file at `path` in one step, so that it is always whole."""
    buffer = io.BytesIO()
    torch.save(
        {**{name: part.state_dict() for name, part in parts.items()}, "history": list(history)}, buffer
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, parts: Mapping[str, Stateful], device: torch.device) -> list[dict[str, Any]]:
    """Set `parts` to what the file holds; its history, empty where there is no file."""
    if not path.exists():
        return []
    state = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    history: list[dict[str, Any]] = state["history"]
    return history
