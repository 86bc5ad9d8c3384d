"""The sets of labelled texts of benchmarks/datasets.py: each made from Debian packages, the same every time.

    python benchmarks/text_sets.py NAME FILE.csv

A maker writes a CSV file of `text` and `label`. Licences: WordNet has its own, which allows any use; manual pages are under
those of the projects that they are of (GPL, BSD, MIT and the like); the fortunes are collected quotations.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sets import debian

# Files of WordNet's lexicographers: what a word is a word for.
TOPICS = {
    4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition", 10: "communication", 11: "event",
    13: "food", 14: "group", 15: "location", 17: "object", 18: "person", 20: "plant", 21: "possession", 22: "process",
    23: "quantity", 24: "relation", 26: "state", 27: "substance", 28: "time",
}  # fmt: skip
LANGUAGES = ("cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt-br", "ro", "sv", "tr", "uk")
MANUALS = (
    "manpages",
    "manpages-dev",
    "coreutils",
    "procps",
    "util-linux",
    "iproute2",
    "git-man",
    "openssl",
    "perl-doc",
)
FORTUNES = (
    "art", "computers", "definitions", "education", "food", "kids", "law", "literature", "love", "men-women", "people",
    "politics", "science", "songs-poems", "sports", "wisdom", "work", "zippy",
)  # fmt: skip
A_CLASS = 2000  # texts at most, where there are many more


def write(path: Path, rows: Iterable[tuple[str, str]], most: int | None = None) -> None:
    """The rows in an order that is drawn, at most so many of a class."""
    found: dict[str, list[str]] = {}
    for text, label in rows:
        found.setdefault(label, []).append(text)
    draws = random.Random(0)
    chosen = [(text, label) for label, texts in sorted(found.items())
              for text in (draws.sample(texts, most) if most and len(texts) > most else texts)]  # fmt: skip
    draws.shuffle(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(chosen)


def glosses(path: Path) -> None:
    """What WordNet says of nouns, by what they are words for: short, 21 topics."""
    write(path, _glosses())


def _glosses() -> Iterator[tuple[str, str]]:
    with (debian("wordnet-base") / "usr/share/wordnet/data.noun").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            topic = int(line.split(" ", 2)[1])
            if topic in TOPICS:
                yield line.partition("| ")[2].strip(), TOPICS[topic]


def languages(path: Path) -> None:
    """Sentences of translated manual pages, by their language: 15."""
    write(path, _languages(), A_CLASS)


def _languages() -> Iterator[tuple[str, str]]:
    for language in LANGUAGES:
        for text in _paragraphs(debian(f"manpages-{language}") / "usr/share/man", 40):
            yield text[:200], language


def manuals(path: Path) -> None:
    """Paragraphs of English manual pages, by the section of the manual: long, 6."""
    write(path, _manuals(), 4 * A_CLASS)


def _manuals() -> Iterator[tuple[str, str]]:
    for package in MANUALS:
        folder = debian(package) / "usr/share/man"
        for section in "1234578":
            for text in _paragraphs(folder / f"man{section}", 80):
                yield text, f"section {section}"


def fortunes(path: Path) -> None:
    """Sayings, jokes and verses, by the file that they are collected in: 18 of different tone."""
    write(path, _fortunes())


def _fortunes() -> Iterator[tuple[str, str]]:
    folders = [debian(package) / "usr/share/games/fortunes" for package in ("fortunes", "fortunes-min")]
    for name in FORTUNES:
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is None:
            continue
        for text in re.split(r"^%$", file.read_text(encoding="utf-8", errors="replace"), flags=re.M):
            if len(text.strip()) > 20:
                yield " ".join(text.split()), name


def _paragraphs(folder: Path, least: int) -> Iterator[str]:
    """The paragraphs of manual pages, without what sets them."""
    seen: set[str] = set()
    for page in sorted(folder.rglob("*.gz")):
        if page.is_symlink():
            continue
        source = gzip.decompress(page.read_bytes()).decode("utf-8", "replace")
        lines = []
        for line in [*source.splitlines(), ".PP"]:
            if line.startswith((".", "'")):
                words = line.split(maxsplit=1)
                if words[0] in (".B", ".I", ".BR", ".IR", ".RB", ".RI", ".BI", ".IB") and len(words) > 1:
                    lines.append(words[1].replace('"', ""))
                elif words[0] in (".PP", ".P", ".LP", ".TP", ".IP", ".SH", ".SS", ".nf", ".EX", ".RS"):
                    text = _plain(" ".join(lines))
                    if len(text) >= least and text not in seen:
                        seen.add(text)
                        yield text
                    lines = []
            else:
                lines.append(line)


def _plain(text: str) -> str:
    text = re.sub(r"\\f(\[\w*\]|\(..|.)", "", text)
    text = re.sub(r"\\\*?\(..|\\\*?\[[^\]]*\]|\\s[-+]?\d", " ", text)
    text = (
        text.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "").replace("\\,", "").replace("\\/", "")
    )
    return " ".join(re.sub(r"\\[ ~0^|%:]", " ", text).split())


TEXT_MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker for maker in (glosses, languages, manuals, fortunes)
}


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=TEXT_MAKERS)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    TEXT_MAKERS[args.name](args.file)


if __name__ == "__main__":
    main()
