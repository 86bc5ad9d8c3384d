"""Synonyms, from WordNet's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.augmentation import synonyms
from tasks.core.common.errors import BadInput
from tasks.core.data.texts import Texts

TEXT = Texts.of_strings(["A doctor runs to the big house, and the house is big."])
# Meanings: part of speech, words. The most frequent ones of a word first; "run" is a verb more often than a noun.
MEANINGS = [
    ("noun", ["house", "firm"]), ("noun", ["house", "home", "dwelling_place"]), ("noun", ["house", "family"]),
    ("noun", ["doctor", "physician"]), ("verb", ["doctor", "fix"]), ("adj", ["big", "large(p)"]),
]  # fmt: skip
COUNTS = [("doctor%1:18:00::", 9), ("doctor%2:30:00::", 2), ("house%1:06:00::", 5)]


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A WordNet of a few words, as wndb(5WN) describes its files."""
    offsets: dict[tuple[str, str], list[int]] = {}
    for part in ("noun", "verb", "adj", "adv"):
        data = b"  1 This is no WordNet.\n"
        for _, words in [meaning for meaning in MEANINGS if meaning[0] == part]:
            for word in words:
                offsets.setdefault((part, word.partition("(")[0]), []).append(len(data))
            members = " ".join(f"{word} 0" for word in words)
            data += f"{len(data):08} 06 {part[0]} {len(words):02x} {members} 000 | something\n".encode()
        (tmp_path / f"data.{part}").write_bytes(data)
        lines = [
            f"{word} {part[0]} {len(at)} 1 @ {len(at)} 0 {' '.join(f'{offset:08}' for offset in at)}  \n"
            for (p, word), at in sorted(offsets.items())
            if p == part
        ]
        (tmp_path / f"index.{part}").write_text("  1 This is no WordNet.\n" + "".join(lines))
    (tmp_path / "cntlist.rev").write_text("".join(f"{key} 1 {count}\n" for key, count in COUNTS))
    monkeypatch.setenv(synonyms.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("wordnet")
def test_synonyms_are_of_the_commonest_meanings_when_words_have_several() -> None:
    assert synonyms.synonyms_of(TEXT) == {
        "big": ["large"], "doctor": ["physician"], "house": ["firm", "home"],
    }  # fmt: skip


def test_synonyms_are_refused_in_one_line_when_there_is_no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synonyms, "FOLDERS", ("/nowhere", "data/raw/wordnet"))
    monkeypatch.delenv(synonyms.VARIABLE, raising=False)
    with pytest.raises(BadInput, match="install Debian's wordnet-base"):
        synonyms.synonyms_of(TEXT)


@pytest.mark.skipif(not Path(synonyms.FOLDERS[0]).is_dir(), reason="Debian's wordnet-base is not installed")
def test_synonyms_are_wordnet_s_when_it_is_installed() -> None:
    found = synonyms.synonyms_of(TEXT)
    assert found["big"] == ["large"]
    assert {"doc", "physician"} <= set(found["doctor"])
