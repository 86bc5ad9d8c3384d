"""Networks: the architectures by name, how one is saved without pickle, and where pretrained weights go.

May import `common`, `config` and `data`. An architecture of your own is a module beside `small_resnet` or `text_bag` and a line
in `architectures`; those of torchvision and timm need no code.
"""
