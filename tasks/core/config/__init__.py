"""params.yaml: one pydantic model a section, how the file is read and checked, and a stage's command line.

May import `common`. A new key is a field in `params` (searches of tune in `tune_params`), a new section a class
there and a field in `params_file.Pipeline`.
"""
