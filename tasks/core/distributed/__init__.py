"""Ranks and hosts: torchrun with our exit codes, the process group, sharding, and sums across ranks.

May import `common` and `models`. A new collective goes to `exchange`, a new kind of sharding to `sharding`.
"""
