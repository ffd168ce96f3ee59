"""`python -m ovs_lite.train NAME ...`, also under `accelerate launch -m` and torch's launcher."""

import sys

from ovs_lite.files import one_line
from ovs_lite.train.command import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"ovs-lite train: {one_line(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError | FileNotFoundError) else 1)
