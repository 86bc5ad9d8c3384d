"""The search of stage press: designs of a network (blocks, ratios, criterion, precision), and which to try next.

May import `pruning`, `quantization`, `evaluation` and what these may. A new dimension of the search goes to `designs`.
"""
