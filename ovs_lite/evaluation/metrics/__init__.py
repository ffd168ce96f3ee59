"""Metrics as exact counts that merge over processes: mIoU, proposal recall."""
