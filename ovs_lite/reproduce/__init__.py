"""Run the notebooks end to end, each only when it has to, and write the report."""
