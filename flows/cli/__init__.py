"""The command `modelpress`: what is typed, and what is printed.

May import all of flows. A new command is a function in `commands` and its arguments in `main`.
"""
