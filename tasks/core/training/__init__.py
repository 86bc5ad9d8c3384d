"""One training loop, and what it is made of: batches, optimizer and schedules, checkpoints, memory, CUDA graphs.

May import `common`, `config`, `data`, `augmentation`, `models` and `distributed`. A new optimizer or schedule goes to
`optimizer`; a new recipe (section of params to a training) to `recipes`.
"""
