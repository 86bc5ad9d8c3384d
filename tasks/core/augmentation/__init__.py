"""Augmentation of whole batches: which operations suit the data, and what each does.

May import `common`, `config` and `data`. A new operation is a function in `geometry` or `colours` and its place in `batch`, or
of texts a method in `texts`, and its range in `config.params.AugmentParams`.
"""
