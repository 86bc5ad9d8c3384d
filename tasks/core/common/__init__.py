"""What every package may use: errors in one line, files written whole, progress, workers, keyed journals.

Imports nothing of ours. Something belongs here when it knows neither images nor networks and at least two packages
need it; a new kind of error goes to `errors`.
"""
