"""The nouns that the stages share, a package a subject. Which may import which is written in tests/unit/test_tree.py."""
