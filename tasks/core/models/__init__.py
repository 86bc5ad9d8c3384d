"""Networks: the architectures by name, how one is saved without pickle, and where pretrained weights go.

May import `common`. An architecture of your own is a module beside `small_resnet` and a line in `architectures.build`;
those of torchvision and timm need no code.
"""
