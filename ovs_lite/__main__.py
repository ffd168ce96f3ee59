"""`python -m ovs_lite` is the `ovs-lite` command."""

import sys

from ovs_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
