"""What a token is: one rule, written once as nodes of ONNX, by which data are packed and by which a model's file reads.

ASCII letters are made small. A token is a run of letters with their marks, a run of digits, or any other single character
that is to be seen, as are those of scripts in which words are not set apart (Chinese, Japanese, Thai). A network sees a
token's hash (MurmurHash3, Appleby 2008, 32 bits), 0 where there is none.

N: texts, L: tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPERATORS = "com.microsoft"  # whose Tokenizer and MurmurHash3 every build of ONNX Runtime has
SETS = [helper.make_opsetid("", 20), helper.make_opsetid(OPERATORS, 1), helper.make_opsetid("ai.onnx.ml", 4)]
# Scripts that set words apart; the tokenizer takes the longest match, so that others cannot be named before letters.
SPACED = "".join(
    rf"\p{{{script}}}"
    for script in (
        "Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic", "Syriac", "Devanagari", "Bengali",
        "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Hangul", "Ethiopic",
        "Cherokee", "Mongolian",
    )
)  # fmt: skip
TOKEN = rf"[{SPACED}\pM]+|\pN+|[^\s\pZ\pC\pN\pM{SPACED}]"  # RE2
BATCH = 256  # texts that are hashed at once


def hashing(text: str, tokens: str, longest: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes from strings [N] to int64 [N, L], and their constants.

    Args:
        text: the name of what they read.
        tokens: that of what they write.
        longest: tokens that are kept of a text.
    """
    nodes = [
        helper.make_node(
            # The default locale is not installed everywhere.
            "StringNormalizer", [text], ["text_small"], "text_small", case_change_action="LOWER", locale="C"
        ),
        helper.make_node(
            "Tokenizer", ["text_small"], ["text_words"], "text_words",
            domain=OPERATORS, mark=0, mincharnum=1, pad_value="", tokenexp=TOKEN,
        ),
        helper.make_node(
            "Slice", ["text_words", "text_start", "text_longest", "text_axis"], ["text_kept"], "text_kept"
        ),
        helper.make_node(
            "MurmurHash3", ["text_kept"], ["text_hashes"], "text_hashes", domain=OPERATORS, positive=1, seed=0
        ),
        helper.make_node("Cast", ["text_hashes"], [tokens], "text_tokens", to=TensorProto.INT64),
    ]  # fmt: skip
    values = {"text_start": 0, "text_longest": longest, "text_axis": 1}
    return nodes, [numpy_helper.from_array(np.array([v], np.int64), name) for name, v in values.items()]


class Words:
    """From texts to the hashes of their tokens, as `hashing` has them, an `Encoder`.

    Args:
        longest: tokens that are kept of a text.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._run = _session(_tokenizer(longest))

    def tokens_of(
        self, texts_N: npt.NDArray[np.object_]
    ) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
        """The tokens of BATCH texts, end to end, and how many each has."""
        for start in range(0, len(texts_N), BATCH):
            (tokens_NL,) = self._run.run(None, {"text": texts_N[start : start + BATCH]})
            last_NL = np.where(tokens_NL != 0, np.arange(1, tokens_NL.shape[1] + 1), 0)
            lengths_N = last_NL.max(1, initial=0)
            kept_NL = np.arange(tokens_NL.shape[1]) < lengths_N[:, None]
            yield tokens_NL[kept_NL].astype(np.uint32), lengths_N.astype(np.int64)

    def names(self, texts_N: npt.NDArray[np.object_]) -> dict[int, str]:
        """The tokens of these texts by their hashes."""
        hashes_NL, words_NL = _hashes_and_words(texts_N, self._longest)
        return dict(zip(hashes_NL.ravel().tolist(), words_NL.ravel().tolist(), strict=True))

    def ending_with(self, ends: tuple[str, ...]) -> list[int]:
        """Those that are such a character: no other holds one."""
        return sorted(hashes_of(ends).values())


def _tokenizer(longest: int) -> onnx.ModelProto:
    nodes, constants = hashing("text", "tokens", longest)
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=SETS, ir_version=10)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def split_words(texts_N: npt.NDArray[np.object_], longest: int) -> list[list[str]]:
    """The tokens of each of these texts, so many of the first at most. Set apart by blanks they are the same tokens again."""
    hashes_NL, words_NL = _hashes_and_words(texts_N, longest)
    lengths_N = (hashes_NL != 0).sum(1)
    return [words_L[:n].tolist() for words_L, n in zip(words_NL, lengths_N, strict=True)]


def _hashes_and_words(
    texts_N: npt.NDArray[np.object_], longest: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """[N, L], both."""
    model = onnx.load_from_string(_tokenizer(longest).SerializeToString())
    model.graph.output.append(helper.make_tensor_value_info("text_kept", TensorProto.STRING, ["N", "L"]))
    hashes_NL, words_NL = _session(model).run(["tokens", "text_kept"], {"text": texts_N})
    return hashes_NL, words_NL


def hashes_of(words: Sequence[str]) -> dict[str, int]:
    """Of words that are one token each."""
    if not words:
        return {}
    (tokens_N1,) = _session(_tokenizer(1)).run(None, {"text": np.array(words, object)})
    return dict(zip(words, tokens_N1[:, 0].tolist(), strict=True))
