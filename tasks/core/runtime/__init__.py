"""What serves: export to ONNX, ONNX Runtime sessions, latency, and the promise that a model carries.

May import `common`, `data` and `models`. A pass over the exported graph goes beside `branches`; something new to
measure beside `latency`.
"""
