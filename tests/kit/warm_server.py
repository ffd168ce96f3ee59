"""A process that imports the modules it is given once; then each copy of it (a fork) runs one function of the kit.

`kit.warm` starts it and asks by lines of JSON. A copy is a process of its own that no test shares, and ends as every
interpreter does: exit codes, tracebacks, Ctrl-C and the clean-up are Python's. What copies of one server share, unlike
fresh processes, is the seed of Python's hashes; numpy's global generator is seeded anew in each. When the other end
closes, because the tests are over or were killed, the server kills what still runs and ends.
"""

import gc
import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module


def serve() -> dict:
    """Answer until the other end closes. Returns in copies only: what the copy is to do."""
    running = set()
    with suppress(BrokenPipeError):  # the other end was killed while it waited for an answer
        while line := sys.stdin.readline():
            request = json.loads(line)
            if "ended" in request:
                answer = ended(request["ended"], running)
            elif answer := os.fork():
                running.add(answer)
            else:
                return request
            print(json.dumps(answer), flush=True)
    for number in running:
        os.kill(number, signal.SIGKILL)
    raise SystemExit


def ended(number: int, running: set[int]) -> int | None:
    """The exit code of a copy, -n after signal n; None while it runs. Until it is asked for, its number stays taken."""
    found, status = os.waitpid(number, os.WNOHANG)
    if not found:
        return None
    running.remove(number)
    return os.waitstatus_to_exitcode(status)


def become(request: dict) -> None:
    """Take on the files, folder, environment and words of a process that was started with them."""
    import numpy as np

    for number, path in enumerate((os.devnull, *request["files"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["function"], *request["words"]]
    np.random.seed()


def main() -> None:
    for name in sys.argv[1:]:
        import_module(name)  # no more than that: a thread of torch's pools does not survive a fork
    gc.collect()
    gc.freeze()  # a copy that ends would touch, and thereby copy, every object
    request = serve()
    become(request)
    module, name = request["function"].rsplit(".", 1)
    getattr(import_module(module), name)(*request["words"])


if __name__ == "__main__":
    main()
