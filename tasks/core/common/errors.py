"""The two ways in which a stage can fail on purpose."""

from __future__ import annotations


class BadInput(Exception):
    """What the user gave cannot be used. One line that names the file or key; exit code 2."""


class StageFailed(Exception):
    """The work itself went wrong. One line that says how; exit code 1."""
