"""Ending a long job in good order when somebody asks for it."""

import signal
import sys


class Interrupts:
    """While active, the first SIGTERM or SIGINT is remembered in `number` for the job to read; a second one kills."""

    def __init__(self):
        self.number, self.previous = 0, {}

    def end(self, message: str) -> None:
        """End the run as the signal would have."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        print(message, file=sys.stderr)
        raise SystemExit(128 + (self.number or signal.SIGTERM))

    def _remember(self, number: int, _frame) -> None:
        self.number = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: leave signals to whoever owns them
                break
        return self

    def __exit__(self, *_):
        self._give_back()
