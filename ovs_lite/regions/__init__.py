"""What every mask-based method shares: where masks come from, who names them, how they are fused to a label map."""
