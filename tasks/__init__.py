"""The stages and the library that they share."""

import os

# ONNX Runtime reports how it is used, unless it is told not to before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
