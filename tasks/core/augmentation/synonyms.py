"""Words of the same meaning, from WordNet (Miller 1995, "WordNet: a lexical database for English").

Its files are read here, by wndb(5WN): nltk's reader (3.10) takes them below its own data folders alone, and wants two that
Debian's package leaves out.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from tasks.core.common.errors import BadInput
from tasks.core.data.texts import Texts

FOLDERS = ("/usr/share/wordnet", "data/raw/wordnet")  # Debian's wordnet-base, and one's own
VARIABLE = "WORDNET"  # names another one
PARTS = {
    "1": "noun",
    "2": "verb",
    "3": "adj",
    "4": "adv",
    "5": "adj",
}  # of speech, by their numbers in sense keys
MOST_WORDS = 30_000  # the most frequent ones, that synonyms are sought of
MEANINGS = 2  # the most frequent ones of a word, in the part of speech that it mostly is
MOST = 6  # synonyms that are kept

_WORD = re.compile(r"[a-z]{3,}")


def folder() -> Path | None:
    """Where WordNet lies, if it lies anywhere."""
    places = [Path(place) for place in (os.environ.get(VARIABLE), *FOLDERS) if place]
    return next((place for place in places if (place / "index.noun").is_file()), None)


def synonyms_of(texts: Texts) -> dict[str, list[str]]:
    """Words and their synonyms. Stop words have none.

    Raises:
        BadInput: WordNet is not there.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # takes a second

    there = folder()
    if there is None:
        raise BadInput(
            f"augment.synonyms, augment.insert: WordNet is not there: install Debian's wordnet-base, or lay its files into {FOLDERS[1]}"
        )
    counts = Counter(word for text in np.asarray(texts) for word in _WORD.findall(text.lower()))
    for word in ENGLISH_STOP_WORDS:
        counts.pop(word, None)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS]
    return _found(there, {word for word, _ in frequent})


def _found(there: Path, words: set[str]) -> dict[str, list[str]]:
    meanings = _meanings(there, words)
    found = {}
    data = {}
    for part in sorted(set(PARTS.values())):
        with (there / f"data.{part}").open("rb") as file:
            data[part] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for word, (part, offsets) in sorted(meanings.items()):
        names = (name for offset in offsets for name in _members(data[part], offset))
        others = [name for name in dict.fromkeys(names) if name != word and _WORD.fullmatch(name)][:MOST]
        if others:
            found[word] = others
    return found


def _meanings(there: Path, words: set[str]) -> dict[str, tuple[str, list[int]]]:
    """Of each word the part of speech that it mostly is, and where its most frequent meanings there are described."""
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for line in (there / "cntlist.rev").read_text(encoding="ascii").splitlines():
        key, _, count = line.split(" ")
        word, _, rest = key.partition("%")
        if word in words:
            uses[word][PARTS[rest[0]]] += int(count)
    found: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for part in sorted(set(PARTS.values())):
        with (there / f"index.{part}").open(encoding="ascii") as lines:
            for line in lines:
                word, _, rest = line.partition(" ")
                if word in words:
                    fields = rest.split()
                    senses = int(fields[1])
                    found[word][part] = [int(offset) for offset in fields[-senses:][:MEANINGS]]
    # Where nothing was counted, nouns are more frequent than verbs, and so on.
    order = {part: place for place, part in enumerate(PARTS.values())}
    return {
        word: min(of_word.items(), key=lambda item: (-uses[word][item[0]], order[item[0]]))
        for word, of_word in found.items()
    }


def _members(data: mmap.mmap, offset: int) -> list[str]:
    """The words of the meaning that is described at `offset`."""
    data.seek(offset)
    fields = data.readline().decode("ascii").split(" ")
    count = int(fields[3], 16)
    return [fields[4 + 2 * i].partition("(")[0].lower() for i in range(count)]
