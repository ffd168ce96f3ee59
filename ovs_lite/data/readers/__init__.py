"""Readers of the real data sets: each yields records and reports what it skips."""
