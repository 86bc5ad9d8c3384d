"""Hyperparameter search: studies, samplers and pruners, trials, and the ways to run them (in step, shared, on Ray).

May import `training` and what it may. A new sampler or pruner goes to `samplers`.
"""
