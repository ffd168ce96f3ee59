"""Methods: one file per paper or baseline. What is frozen, what is trained, and the tensor-level `predict`."""
