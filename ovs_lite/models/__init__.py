"""Shared parts of networks: backbone, pyramid, query decoder, masks drawn by texts."""
