"""What `auto` in params.yaml becomes: rules, and short trials on the images for training and validation.

May import `training`, what lies below it, and `evaluation`. A network to choose from goes into `networks`, an
augmentation that is tried into `augmentations`, another question into `questions`, a length into `rules`.
"""
