"""What several tests share: small records, images, models, tasks, runs and processes. `from kit.records import ...`."""
