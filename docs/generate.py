"""Write the pages of the reference that the code knows better than any author: `python docs/generate.py`."""

from __future__ import annotations

from pathlib import Path

from flows.cli import describe
from tasks.core.config.params_file import Asked, Pipeline
from tasks.core.data.images import REFUSED, formats

REFERENCE = Path(__file__).parent / "reference"
SMALLEST = {"ingest": {"source": "x"}, "prune": {"ratios": [0.5]}, "quantize": {"schemes": ["fp32"]}}

PARAMS = """\
# Parameters

Every key of `params.yaml`, one section a stage. `modelpress params` shows them with the values of your checkout; an
unknown key or an ill-typed value is refused in one line before anything runs. Generated from the code.

Where the type says `or auto`, the value may be `auto`: stage `recipe` settles it for the data, within `recipe.budget`,
and `data/recipe/choices.json` says why. `modelpress init` sets all of them to `auto`. A key that is not there has its
default.
"""
DATA = """\
# Data

`modelpress init PATH` says what it finds, and takes

- a folder `CLASS/*.png`, with or without `train/`, `val/` and `test/` above;
- a zip or tar of one, which is unpacked for as long as it is read, and never beyond its folder or the disk's room;
- a CSV, TSV, JSON or JSON lines file of file names and labels that lies above the images, with a header or two bare
  columns; a column `split` (train, val, test) is followed. Files are sought by path, by name, and by name without an
  extension. A `metadata.csv` or `metadata.jsonl`, as Hugging Face's image folders have it, is found by itself;
- a folder of IDX files.

`ingest.groups` keeps together what must not be torn apart by a split, such as all images of one patient: `1` for the
folder that an image lies in, `2` for the one above, a regular expression of paths (its first group is the name), or
`column:NAME` of the table.

Grey or RGB and the images' size are found out. Mixed sizes, palettes, transparency, 16 bits, CMYK, animations and
rotated photographs are handled by rules that the data report states. What cannot be read is left out, counted and
named: damaged files, links that leave the folder or lead to another, hidden files, files that vanish while they are read.
DVC hashes every file of the folder, those too that are left out, and has no rule for what it cannot hash: a link that
leads nowhere or in a circle, a pipe or a socket, a file that may not be read, a name that is not UTF-8. `init`, `run` and
`status` name such files in one line before anything is done; remove or rename them.

## Formats

Whatever Pillow opens is taken, by the extensions that it knows, if the content is what the extension says or one of
the common formats. Generated from the code, of the Pillow that is in the lock.

"""


def params() -> str:
    """docs/reference/params.md."""
    lines, section = [PARAMS], ""
    for key in describe.keys(Asked({}, Pipeline.model_validate(SMALLEST), frozenset())):
        name = key.name.partition(".")[0]
        if name != section:
            section = name
            lines += [f"\n## {section}\n", "| key | default | type | |", "|---|---|---|---|"]
        default = "" if key.default is None else f"`{key.default}`"
        lines.append(f"| `{key.name}` | {default} | {key.type} | {key.description} |")
    return "\n".join(lines) + "\n"


def data() -> str:
    """docs/reference/data.md."""
    taken: dict[str, list[str]] = {}
    for extension, names in formats().items():
        taken.setdefault(names[0], []).append(f"`{extension}`")
    lines = ["| format | extensions |", "|---|---|"]
    lines += [f"| {name} | {', '.join(sorted(taken[name]))} |" for name in sorted(taken)]
    lines += ["", "Not taken:", "", "| format | because |", "|---|---|"]
    lines += [f"| {name} | {reason} |" for name, reason in sorted(REFUSED.items())]
    return DATA + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (REFERENCE / "params.md").write_text(params(), encoding="utf-8")
    (REFERENCE / "data.md").write_text(data(), encoding="utf-8")
