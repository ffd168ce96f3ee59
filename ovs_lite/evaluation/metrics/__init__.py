"""Metrics: exact counts that merge over processes (mIoU, PQ), overlaps of masks, intervals over images and seeds."""
