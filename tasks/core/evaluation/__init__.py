"""What a candidate is and how sure its figures are: names and tables of candidates, intervals, exact tests.

May import `common`, `config` and `data`. A new statistic goes to `stats`.
"""
