"""The images of a folder with their labels and groups: by folders or by a table, nothing opened but that."""

from __future__ import annotations

from pathlib import Path

from tasks.core.common.errors import BadInput
from tasks.core.config.params import IngestParams
from tasks.core.data import groups, sources, tables
from tasks.core.data.sources import Found

COLUMN = "column:"  # ingest.groups names a column of the table so


def find(params: IngestParams, source: Path) -> tuple[Found, list[str]]:
    """What is there, and the rules by which it was found.

    Raises:
        BadInput: nothing is there, or it is not clear what it is.
    """
    column = None
    if isinstance(params.groups, str) and params.groups.startswith(COLUMN):
        column = params.groups.removeprefix(COLUMN)
    listing = tables.tables_of(source, params.labels)
    if column and not listing:
        raise BadInput(f"ingest.groups: {params.groups}: there is no table of labels; set ingest.labels")
    found = tables.find_listed(source, listing, column) if listing else sources.find_images(source)
    sources.check_classes(found.classes, source, found.left_out)
    if params.groups is not None and column is None:
        paths = [found.paths[i] for i in range(len(found.paths))]
        found.groups = groups.group_names(params.groups, paths)
    rules = tables.RULES if listing else sources.RULES
    return found, [*rules, *(groups.RULES if params.groups is not None else [])]
