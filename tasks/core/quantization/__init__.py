"""Lower precision: the schemes by name, static quantization, training for it, bias correction, and what is delivered.

May import `training`, `runtime` and what these may. A new scheme is one function and its line in `schemes`.
"""
