"""Slow, independent versions of what the package computes: by loops over Python floats, or as released code does it."""
