"""Commands that end in good order after SIGTERM: what is finished is kept, and the same command resumes with the rest.

What they call looks whether the signal came (`write_in_parts`, `count_in_blocks`); here it is remembered while a
command still loads its models and data, in one of several processes, too.
"""

import signal
from collections.abc import Callable, Sequence
from functools import wraps

from ovs_lite.distributed import Interrupts


def ends_in_order(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Decorates the entry point of a command whose work is in parts or blocks."""

    @wraps(main)
    def run(argv: Sequence[str] | None = None) -> None:
        with Interrupts(signal.SIGTERM):
            main(argv)

    return run
