"""Train fastText on labelled lines and write its quantized model, for text_peers.py.

    python benchmarks/train_fasttext.py LINES OUT SETTINGS

SETTINGS is JSON. A process of its own, since fastText diverges at any settings ("Encountered NaN") in one that has computed
other things before, and the more often it did, the more often it does.
"""

import json
import sys

import fasttext

lines, out, settings = sys.argv[1:]
model = fasttext.train_supervised(lines, thread=1, seed=0, verbose=0, **json.loads(settings))
model.quantize(lines, qnorm=True, retrain=True, cutoff=100_000)
model.save_model(out)
