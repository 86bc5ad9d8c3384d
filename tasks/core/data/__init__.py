"""From files to packed, memory-mapped arrays: sources and their rules, decoders, splits, and the data set that is read.

May import `common` and `config`. A new kind of source is a module beside `idx` and a line in `samples`; a new image
format is a matter of `images`.
"""
