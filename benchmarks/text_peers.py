"""Our selected models of texts beside what others make of the same texts: accuracy, bytes and time.

    make text_peers [ARGS="NAME …"]

Of each set the run of `python benchmarks/datasets.py NAME` has to be there. The others learn from the same training texts, and
their settings are chosen on the same validation texts: scikit-learn's TF-IDF with logistic regression, fastText's own quantized
model, and logistic regression on the embeddings of a model in model2vec's format (tokenlearn-static-model, 64 numbers of 8 bits).
Accuracies are of the test texts. Times are of one thread, from raw texts to labels, all in turn: texts one at a time, and 1,000
of them at once where there is a way to ask for that.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
from common import RESULTS, about, interleaved
from model2vec import StaticModel
from numpy.typing import NDArray
from sets import ROOT
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from text_sets import TEXT_MAKERS
from threadpoolctl import threadpool_limits

from tasks.core.common.files import write_json
from tasks.core.data.dataset import Dataset, Split, open_dataset
from tasks.core.evaluation.stats import loss
from tasks.core.runtime.session import predict, session

RESULT = RESULTS / "text_peers.json"
ALONE, MANY, ROUNDS = 50, 1000, 15
WORDS = 30  # of the texts that are timed one at a time, about


@dataclass(frozen=True)
class Contender:
    """Labels of texts, as numbers of classes, and how much is to be shipped. `one` takes a text, and `many` a list of them;
    None where a list is only a loop."""

    labels: Callable[[Sequence[str]], NDArray[np.int64]]
    one: Callable[[str], object]
    many: Callable[[Sequence[str]], object] | None
    size_bytes: int
    settings: str


def texts_of(split: Split) -> list[str]:
    return np.asarray(split.raw_N).tolist()


def ours(model: Path) -> Contender:
    run = session(model, 1)
    chosen = json.loads((model.parent / "metrics.json").read_text(encoding="utf-8"))["selected"]

    def labels(texts: Sequence[str]) -> NDArray[np.int64]:
        return predict(run, np.array(texts, object)).argmax(1)

    def one(text: str) -> object:
        return run.run(None, {"text": np.array([text], object)})

    return Contender(labels, one, labels, model.stat().st_size, chosen)


def tfidf(data: Dataset) -> Contender:
    train, val = texts_of(data.train), texts_of(data.val)
    best: tuple[float, Any, str] = (-1.0, None, "")
    for most, penalty in itertools.product((1, 2), (1.0, 10.0, 100.0)):
        pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, most), min_df=2, sublinear_tf=True),
            LogisticRegression(C=penalty, max_iter=300),
        )
        pipeline.fit(train, data.train.labels_N)
        accuracy = float((pipeline.predict(val) == data.val.labels_N).mean())
        best = max(best, (accuracy, pipeline, f"{most}-grams, C {penalty:g}"), key=lambda found: found[0])
    _, pipeline, settings = best
    size = len(pickle.dumps(pipeline))  # how scikit-learn ships; nothing is loaded here
    return Contender(
        pipeline.predict, lambda text: pipeline.predict([text]), pipeline.predict, size, settings
    )


def fast_text(data: Dataset, folder: Path) -> Contender:
    file = folder / "train.txt"
    lines = zip(texts_of(data.train), data.train.labels_N.tolist(), strict=True)
    file.write_text("".join(f"__label__{label} {_line(text)}\n" for text, label in lines), encoding="utf-8")
    val = texts_of(data.val)

    def numbers(model: Any, texts: Sequence[str]) -> NDArray[np.int64]:
        found, _ = model.predict([_line(text) for text in texts])
        return np.array([int(label.removeprefix("__label__")) for (label,) in found])

    best: tuple[float, Path, dict[str, Any]] = (-1.0, folder, {})
    for most, passes, rate in itertools.product((1, 2), (10, 25), (0.1, 0.25, 0.5, 1.0)):
        asked = {"wordNgrams": most, "epoch": passes, "lr": rate, "dim": 64, "bucket": 200_000}
        trained = folder / f"{most}-{passes}-{rate}.bin"
        _fast_text("train", file, trained, json.dumps(asked))
        accuracy = float((numbers(fasttext.load_model(str(trained)), val) == data.val.labels_N).mean())
        best = max(best, (accuracy, trained, asked), key=lambda found: found[0])
    _, trained, asked = best
    quantized = folder / "quantized.ftz"
    _fast_text("quantize", file, trained, quantized)
    model = fasttext.load_model(str(quantized))
    return Contender(
        partial(numbers, model),
        lambda text: model.predict(_line(text)),
        partial(numbers, model),
        quantized.stat().st_size,
        ", ".join(f"{key} {value}" for key, value in asked.items()),
    )


def _fast_text(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, Path(__file__).parent / "train_fasttext.py", *arguments], check=True)


def model2vec(data: Dataset) -> Contender:
    package = importlib.util.find_spec("static_model")
    assert package is not None and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0]) / "model"
    encoder = StaticModel.from_pretrained(folder)
    train_ND, val_ND = (encoder.encode(texts_of(split)) for split in (data.train, data.val))
    best: tuple[float, Any, float] = (-1.0, None, 0.0)
    for penalty in (1.0, 10.0, 100.0):
        classifier = LogisticRegression(C=penalty, max_iter=500).fit(train_ND, data.train.labels_N)
        accuracy = float((classifier.predict(val_ND) == data.val.labels_N).mean())
        best = max(best, (accuracy, classifier, penalty), key=lambda found: found[0])
    _, classifier, penalty = best

    def labels(texts: Sequence[str]) -> NDArray[np.int64]:
        return np.asarray(classifier.predict(encoder.encode(list(texts))))

    size = sum((folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    size += 4 * (classifier.coef_.size + classifier.intercept_.size)
    return Contender(labels, lambda text: labels([text]), labels, size, f"C {penalty:g}")


def measured(name: str) -> dict[str, Any]:
    """The table of a set."""
    folder = ROOT / f".modelpress/datasets/{name}-normal/data"
    data = open_dataset(folder / "ingest")
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        contenders = {
            "ours": ours(folder / "select/model.onnx"),
            "TF-IDF, logistic regression": tfidf(data),
            "fastText, quantized": fast_text(data, Path(scratch)),
            "model2vec, logistic regression": model2vec(data),
        }
        test = texts_of(data.test)
        right = {key: c.labels(test) == data.test.labels_N for key, c in contenders.items()}
        near = sorted(test, key=lambda text: abs(len(text.split()) - WORDS))[:ALONE]
        many = (test * (MANY // len(test) + 1))[:MANY]
        alone = {key: partial(_each, c.one, near) for key, c in contenders.items()}
        at_once = {key: partial(c.many, many) for key, c in contenders.items() if c.many}
        alone_s, many_s = interleaved(alone, ROUNDS), interleaved(at_once, ROUNDS)
    rows = {}
    for key, contender in contenders.items():
        lost = loss(right["ours"], right[key], 10_000, 0)
        rows[key] = {
            "accuracy": round(float(right[key].mean()), 4),
            "behind_ours_points": round(lost.points, 2),
            "behind_ours_ci95": [round(lost.low, 2), round(lost.high, 2)],
            "size_bytes": contender.size_bytes,
            "us_a_text": round(statistics.median(alone_s[key]) / len(near) * 1e6, 1),
            "texts_a_second": round(MANY / statistics.median(many_s[key])),
            "settings": contender.settings,
        }
        print(f"{name}: {key}: {json.dumps(rows[key])}", flush=True)
    return {"test_texts": len(test), "words": WORDS, "contenders": rows}


def _line(text: str) -> str:
    return " ".join(text.split())


def _each(one: Callable[[str], object], texts: Sequence[str]) -> None:
    for text in texts:
        one(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*TEXT_MAKERS, []], help="sets; all, if none is named")
    names = parser.parse_args().names or list(TEXT_MAKERS)
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"sets": {}}
    for name in names:
        row = {**measured(name), **about(("fasttext-numpy2-wheel", "model2vec", "scikit-learn"))}
        found["sets"][name] = row
        write_json(RESULT, found)


if __name__ == "__main__":
    main()
