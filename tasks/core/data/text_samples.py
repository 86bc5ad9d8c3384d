"""Reading texts whole: a table, or one a split, every text one row of bytes and one of tokens.

N: rows.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.common.files import write_text
from tasks.core.config.params import IngestParams
from tasks.core.data import documents, encoders, near_texts, packing
from tasks.core.data.dataset import TOKENIZER_FILE
from tasks.core.data.encoders import Encoder, encoder_of
from tasks.core.data.groups import numbered
from tasks.core.data.inputs import TextInput
from tasks.core.data.near import Near
from tasks.core.data.samples import Samples, Written
from tasks.core.data.sources import SPLIT_NAMES, SPLITS, TRAIN, LeftOut, check_classes, show
from tasks.core.data.texts import Texts, Tokens

LONGEST_CHARACTERS = 50_000  # of a text that are kept
LONGEST_TOKENS, SHARE = 256, 0.99  # that max_tokens: auto keeps at most, and of so many of the texts all
STEP = 8  # that number is a multiple of

RULES = [
    "Texts are normalised (Unicode NFC); without a visible character they are left out, and without a label.",
    "Blanks around labels are taken off. Labels that differ by upper and lower case alone are one, spelled as most are.",
    f"Of a text the first {LONGEST_CHARACTERS:,} characters are kept.",
    f"max_tokens auto: so many that {SHARE:.0%} of the texts for training have no more, at most {LONGEST_TOKENS}; a model "
    "sees no token behind them.",
    "Texts are duplicates when they differ by upper and lower case and by blanks alone.",
]


@dataclass(kw_only=True)
class TextSamples(Samples):
    """Texts, in the file `scratch` until they are packed."""

    noun: ClassVar[str] = "texts"
    one: ClassVar[str] = "a text"
    alike: ClassVar[str] = "words"
    general: ClassVar[list[str]] = [*RULES, *encoders.RULES, *packing.RULES[1:], *near_texts.RULES]

    ends_N: npt.NDArray[np.int64]
    scratch: Path
    max_tokens: int | str
    bpe_vocabulary: int | None  # None: tokens are words
    columns: dict[str, str]

    @property
    def texts(self) -> Texts:
        """All of them, from the file."""
        flat = np.memmap(self.scratch, np.uint8, "r") if self.ends_N[-1] else np.zeros(0, np.uint8)
        return Texts.of(flat, self.ends_N)

    def pack(self, out: Path, step: Callable[[int], None]) -> Written:
        """As `Samples.pack`: of each split the texts, where each ends, and their tokens likewise."""
        most = LONGEST_TOKENS if self.max_tokens == "auto" else int(self.max_tokens)
        total = hashlib.sha256()
        described = None
        if self.bpe_vocabulary is not None:
            described = self._learned(self.bpe_vocabulary)
            write_text(out / TOKENIZER_FILE, described)
            total.update(described.encode())
        encoder = encoder_of(TextInput(most, most, described))
        packed: dict[str, Tokens] = {}
        for split, name in enumerate(SPLITS):
            rows = np.flatnonzero(self.places_N == split)
            packed[name] = _write_texts(self.texts[rows], out / f"{name}_texts", encoder, total, step)
            labels = self.labels_N[rows].astype(np.int64)
            total.update(f"{name} {len(rows)}\n".encode() + labels.tobytes())
            np.save(out / f"{name}_labels.npy", labels)
        train = packed[SPLITS[TRAIN]]
        longest = self._longest(train)
        for name, of_split in packed.items():
            kept = Tokens(of_split.flat, of_split.starts_N, np.minimum(of_split.lengths_N, longest))
            np.save(out / f"{name}_tokens.npy", kept.packed())
            np.save(out / f"{name}_tokens_ends.npy", np.cumsum(kept.lengths_N))
        self.scratch.unlink(missing_ok=True)
        typical = max(1, round(float(np.median(train.lengths_N))))
        total.update(str(longest).encode())
        layout = {
            "kind": "texts",
            "tokens": "words" if self.bpe_vocabulary is None else "bpe",
            "longest": longest,
            "typical": min(typical, longest),
        }
        return Written(total.hexdigest(), layout, {})

    def _learned(self, vocabulary: int) -> str:
        """Byte pairs of the texts for training, some of them at a time."""
        from tasks.core.data.bpe import learned  # with a library that words do not need

        texts = self.texts[np.flatnonzero(self.places_N == TRAIN)]
        pieces = (texts[start : start + documents.PIECE] for start in range(0, len(texts), documents.PIECE))
        return learned((text for piece in pieces for text in np.asarray(piece)), vocabulary)

    def _longest(self, train: Tokens) -> int:
        if self.max_tokens != "auto":
            return int(self.max_tokens)
        enough = int(np.quantile(train.lengths_N, SHARE, method="higher")) if len(train) else 1
        return min(LONGEST_TOKENS, max(STEP, -(-enough // STEP) * STEP))

    def near(self, out: Path, seed: int) -> Near:
        return near_texts.find_near(out, seed)

    @property
    def about(self) -> dict[str, Any]:
        lengths_N = np.diff(self.ends_N, prepend=0)
        return {
            "columns": self.columns,
            "bytes": {"median": int(np.median(lengths_N)), "most": int(lengths_N.max())},
        }


def _write_texts(
    texts: Texts,
    path: Path,
    encoder: Encoder,
    total: hashlib._Hash,
    step: Callable[[int], None],
) -> Tokens:
    """Write the texts to `path`.npy, end to end, and where each ends beside it; their tokens, all of them."""
    flat, lengths = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
    with path.with_suffix(".npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (int(texts.lengths_N.sum()),)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(texts), documents.PIECE):
            some_N = np.asarray(texts[start : start + documents.PIECE])
            for text in some_N:
                file.write(text.encode())
                total.update(text.encode())
            for hashes, counts in encoder.tokens_of(some_N):
                flat.append(hashes)
                lengths.append(counts)
                step(len(counts))
    np.save(path.with_name(f"{path.name}_ends.npy"), np.cumsum(texts.lengths_N))
    return Tokens.of(np.concatenate(flat), np.cumsum(np.concatenate(lengths)))


def read_texts(params: IngestParams, source: Path, scratch: Path) -> TextSamples:
    """Read the tables of `source` into the file `scratch`.

    Raises:
        BadInput: a table cannot be read, or holds no texts, or those of one class only.
        OSError: the disk is full.
    """
    asked = documents.Asked(params.text, params.label, _group_column(params), params.encoding)
    left_out = LeftOut()
    labels: list[str] = []
    groups: list[str] = []
    places, ends, numbers, files = array("b"), array("q"), array("q"), array("i")
    digests = array("Q")
    end, cut, columns = 0, 0, None
    tables = documents.tables(source)
    with scratch.open("wb") as file:
        for at, (table, given) in enumerate(tables.items()):
            for columns, frame in documents.pieces(table, asked):
                cells = (frame[name].tolist() if name else [None] * len(frame) for name in
                         (columns.text, columns.label, columns.split, columns.group))  # fmt: skip
                for number, text, label, split, group in zip(frame.index, *cells, strict=True):
                    where = f"{table.name}, row {number}"
                    content = _content(text)
                    name = _label(label)
                    if not content or not name:
                        left_out.add(where, "no label" if content else "no text")
                        continue
                    cut += len(content) > LONGEST_CHARACTERS
                    content = content[:LONGEST_CHARACTERS]
                    encoded = content.encode("utf-8", "replace")
                    file.write(encoded)
                    end += len(encoded)
                    ends.append(end)
                    labels.append(name)
                    places.append(given if split is None else _split(table, number, split))
                    numbers.append(number)
                    files.append(at)
                    same = " ".join(content.casefold().split())
                    digests.append(
                        int.from_bytes(
                            hashlib.blake2b(same.encode("utf-8", "replace"), digest_size=8).digest()
                        )
                    )
                    if columns.group:
                        groups.append(str(group) if _there(group) else f"/{where}")
    classes, labels_N, warnings = _classes(labels)
    check_classes(classes, source, left_out, "text")
    assert columns is not None
    if cut:
        warnings.append(
            f"{cut} texts are longer than {LONGEST_CHARACTERS:,} characters, of which the first are kept"
        )
    names = list(tables)
    numbers_N, files_N = np.frombuffer(numbers, np.int64), np.frombuffer(files, np.int32)
    return TextSamples(
        classes=classes,
        name=lambda i: f"{names[files_N[i]].name}, row {numbers_N[i]}",
        labels_N=labels_N,
        places_N=np.frombuffer(places, np.int8).copy(),
        digests_N=np.frombuffer(digests, np.uint64),
        left_out=left_out,
        warnings=warnings,
        rules=[*documents.RULES],
        groups_N=numbered(groups) if columns.group else None,
        ends_N=np.frombuffer(ends, np.int64),
        scratch=scratch,
        max_tokens=params.max_tokens,
        bpe_vocabulary=params.bpe_vocabulary if params.tokens == "bpe" else None,
        columns={"text": columns.text, "label": columns.label},
    )


def _group_column(params: IngestParams) -> str | None:
    """The column that ingest.groups names."""
    if params.groups is None:
        return None
    name = str(params.groups)
    if not name.startswith(documents.COLUMN):
        raise BadInput(f"ingest.groups: {name}: texts are grouped by a column: {documents.COLUMN}NAME")
    return name.removeprefix(documents.COLUMN)


def _there(cell: object) -> bool:
    """Whether a cell holds anything: not None and not NaN."""
    return cell is not None and cell == cell


def _content(cell: object) -> str:
    """The text of a cell; empty where there is nothing to be seen."""
    text = unicodedata.normalize("NFC", str(cell)) if _there(cell) else ""
    return text if any(character.isprintable() and not character.isspace() for character in text) else ""


def _label(cell: object) -> str:
    if not _there(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():  # a column of whole numbers with empty cells
        cell = int(cell)
    return show(" ".join(str(cell).split()).encode("utf-8", "backslashreplace"))


def _split(table: Path, number: int, word: object) -> int:
    try:
        return SPLIT_NAMES[str(word).strip().lower().encode()]
    except KeyError:
        raise BadInput(f"{table}: row {number}: the split is {word!r}, not train, val or test") from None


def _classes(labels: list[str]) -> tuple[list[str], npt.NDArray[np.int32], list[str]]:
    """Names in order, the class of each label, and what was made one."""
    spelled: dict[str, Counter[str]] = {}
    for name, times in Counter(labels).items():
        spelled.setdefault(name.casefold(), Counter())[name] += times
    chosen = {key: min(names, key=lambda n: (-names[n], n)) for key, names in spelled.items()}
    classes = sorted(chosen.values())
    place = {name: i for i, name in enumerate(classes)}
    labels_N = np.array([place[chosen[name.casefold()]] for name in labels], np.int32)
    merged = [f"{', '.join(sorted(names))} are one class" for names in spelled.values() if len(names) > 1]
    return classes, labels_N, [f"{line}: they differ by upper and lower case alone" for line in merged]
