"""Losses: pure functions of tensors. No config, no model, no randomness that is not passed in."""
