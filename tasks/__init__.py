"""The stages and the library that they share."""

import gc
import os

# ONNX Runtime reports how it is used, unless it is told not to before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Importing torch, and exporting a network, makes some hundred thousand objects that stay. Python's collector would go
# over them every 700, a seventh of the time that both take.
gc.set_threshold(max(10_000, gc.get_threshold()[0]))
