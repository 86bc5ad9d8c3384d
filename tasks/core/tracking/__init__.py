"""MLflow: the mirror of a run, and models of its registry as a source of weights.

May import `common` and `reporting`. What is to be logged of a stage goes to `mirror`.
"""
