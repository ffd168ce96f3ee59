"""`python -m ovs_lite.train NAME ...`, also under `accelerate launch -m` and torch's launcher."""

import sys

from ovs_lite.train.command import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        print(f"ovs-lite train: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
