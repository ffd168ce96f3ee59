"""Batches as a function of their index: masks, image-text pairs, webdataset shards."""
