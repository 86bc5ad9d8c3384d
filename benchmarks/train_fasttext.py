"""fastText in a process of its own, for text_peers.py: train on labelled lines, and quantize what was trained.

    python benchmarks/train_fasttext.py train LINES MODEL SETTINGS
    python benchmarks/train_fasttext.py quantize LINES MODEL QUANTIZED

SETTINGS is JSON. In a process that had computed other things before, fastText often diverged ("Encountered NaN"), in one of its
own with the same lines and settings it did not.
"""

import json
import sys

import fasttext

task, lines, model, last = sys.argv[1:]
if task == "train":
    settings = json.loads(last)
    fasttext.train_supervised(lines, thread=1, seed=0, verbose=0, **settings).save_model(model)
else:
    trained = fasttext.load_model(model)
    trained.quantize(lines, qnorm=True, retrain=True, cutoff=100_000, thread=1, verbose=0)
    trained.save_model(last)
