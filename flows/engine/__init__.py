"""DVC's graph, walked by Prefect: the graph, the walk, a stage in a child process, the run lock, the environment.

Imports `tasks.core` and nothing else of flows. What runs stages goes here; what a flow does after them does not.
"""
