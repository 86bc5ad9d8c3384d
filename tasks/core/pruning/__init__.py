"""Smaller networks: criteria, dependency groups of channels, sparsity of single weights, whole blocks, fine-tuning.

May import `training`, `runtime` and what these may. A new criterion is one function and its line in `criteria`.
"""
