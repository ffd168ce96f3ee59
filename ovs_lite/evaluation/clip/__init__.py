"""Examination of a CLIP: zero-shot naming, retrieval, dense maps, on held-out drawings."""
