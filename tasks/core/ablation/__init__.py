"""What each technique gives: which there are, what a training with or without one is, and the effects with intervals.

May import `common` and `evaluation`. A new technique is an entry in `techniques`.
"""
