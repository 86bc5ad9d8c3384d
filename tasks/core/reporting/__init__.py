"""Pages for people: the report and the model card, their sections and charts, and how numbers are written.

May import `evaluation` and what it may. A new section is a function beside those in `sections`, and its
block in `templates/report.html.j2`.
"""
