"""From files to packed, memory-mapped arrays: sources and their rules, decoders, splits, and the data set that is read.

May import `common` and `config`. A new kind of source is a module beside `idx` or `documents`, and a line in `image_samples`
or `text_samples`; a new kind of example is a class beside `ImageInput` and one beside `ImageSamples`, and a line in `read`.
"""
