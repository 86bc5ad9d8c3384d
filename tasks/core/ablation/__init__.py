"""What each technique gives: which there are, what a training with or without one is, and the effects with intervals.

May import `evaluation` and what it may. A new technique is an entry in `techniques`.
"""
