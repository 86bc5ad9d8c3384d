"""MLflow: the mirror of a run, and models of its registry as a source of weights.

May import `reporting` and what it may. What is to be logged of a stage goes to `mirror`.
"""
