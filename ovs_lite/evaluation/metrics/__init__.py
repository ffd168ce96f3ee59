"""Metrics: exact counts that merge over processes (mIoU, proposal recall), and intervals over images and seeds."""
