"""One notebook of a run: why it has to run, and running it in a kernel of its own.

stage.json is written last, so a notebook that was killed has none and is run again; one that is done is skipped for
as long as nothing it was made from has changed and its files are as it left them (see `products`).
made_from.json is written first: checkpoints that a broken run left serve the next one only where it is equal.
"""

import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from ovs_lite.config import Profile, to_dict
from ovs_lite.files import data_path, data_root, printable, read_json, write_json
from ovs_lite.notebook.logs import CLAIMS, METRICS
from ovs_lite.notebook.others import WAIT, WAITED, WAITING, take_waited
from ovs_lite.reproduce.fingerprint import changes, fingerprint
from ovs_lite.reproduce.memory import PeakMemory
from ovs_lite.reproduce.products import EXECUTED, PAGE, STAGE, damaged, read_stage, write_stage
from ovs_lite.reproduce.provenance import commit
from ovs_lite.reproduce.report import write_notebook_page

CELL_TIMEOUT = 3600
MADE_FROM = "made_from.json"
QUIET = "--log-level=50"  # a kernel's notes on its transport and its death would tear the progress bars
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class StageResult:
    """What became of one notebook. status: "done", "up to date" or "failed"; message: why; traceback: of a failure.

    seconds: without those that it waited for others. memory: peak of its kernel and the processes below it, in
    megabytes; 0 where it was not run.
    """

    name: str
    status: str
    message: str = ""
    traceback: str = ""
    seconds: float = 0.0
    memory: int = 0


def why_run(folder: Path, now: dict[str, dict[str, str]]) -> str:
    """Why a notebook has to run, in words; "" when what it left in `folder` is up to date with fingerprint `now`."""
    stage = read_stage(folder)
    if not stage:
        return "the last run did not finish" if (folder / EXECUTED).exists() else "not run before"
    if stage.get("status") != "done":
        return "the last run failed"
    if lost := damaged(folder, stage):
        return f"damaged or gone: {', '.join(lost[:3])}" + f" and {len(lost) - 3} more" * (len(lost) > 3)
    return "; ".join(changes(read_json(folder / MADE_FROM), now))


def run_stage(
    notebook: Path,
    folder: Path,
    profile: Profile,
    recipes: dict[str, Any],
    fresh: bool,
    cell_timeout: int,
    threads: int = 0,
) -> StageResult:
    """Run a notebook into `folder` if it has to, and say what became of it.

    profile: resolved, with the seed. recipes: what a file of changes says of recipes. fresh: forget what an earlier run
    left. cell_timeout: seconds that one cell may take. threads: of its kernel, where the environment does not say
    OMP_NUM_THREADS; 0: one per core. Raises OSError where the folder cannot be written.
    """
    parameters = {"profile": profile.name, "seed": profile.seed, "out": str(folder.resolve())}
    data = data_path(profile.photos) if profile.photos else data_root() / profile.data.folder
    now = fingerprint(notebook, to_dict(profile) | recipes, data)
    reason = "asked to run afresh" if fresh else why_run(folder, now)
    if not reason:
        finished = read_stage(folder).get("finished")
        return StageResult(notebook.stem, "up to date", f"code, package, parameters and data as on {finished}")
    tqdm.write(printable(f"{notebook.stem}: running ({reason})"))
    if fresh or read_json(folder / MADE_FROM) != now or damaged(folder, read_stage(folder)):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MADE_FROM, now)
    for left in (STAGE, METRICS, CLAIMS, EXECUTED, PAGE, WAITING, WAITED):
        (folder / left).unlink(missing_ok=True)
    start = time.perf_counter()
    with PeakMemory() as peak:
        message, traceback = _execute(
            notebook, folder, parameters, cell_timeout, _watched(peak, threads, notebook.parent.resolve())
        )
    seconds = round(time.perf_counter() - start - take_waited(folder), 1)
    if (folder / EXECUTED).exists():
        write_notebook_page(folder, notebook.stem)
    result = StageResult(notebook.stem, "failed" if message else "done", message, traceback, seconds, peak.megabytes)
    write_stage(folder, {**asdict(result), "finished": time.strftime("%Y-%m-%d %H:%M:%S %z"), "commit": commit()})
    return result


def _execute(
    notebook: Path, folder: Path, parameters: dict[str, Any], cell_timeout: int, manager: type
) -> tuple[str, str]:
    """Run a notebook in a kernel of that manager.

    Returns ("", "") or a plain sentence on what went wrong and the traceback, if it left one.
    """
    bar = {"desc": notebook.stem, "leave": False}

    def limit(cell: Any) -> int:
        """Seconds; 0 is none: how long others take is not this cell's fault."""
        return 0 if WAIT in cell.source else cell_timeout

    try:
        executed = papermill.execute_notebook(
            notebook, folder / EXECUTED, parameters, kernel_name="python3", language="python",
            progress_bar=bar, timeout_func=limit, extra_arguments=[QUIET],
            kernel_manager_class=manager,
        )  # fmt: skip
    except PapermillExecutionError as error:
        reason = ANSI.sub("", f"{error.ename}: {error.evalue}").strip().splitlines()[0]
        return f"cell In [{error.exec_count}] failed: {reason}", ANSI.sub("", "\n".join(error.traceback))
    except CellTimeoutError:
        return f"{_last_started_cell(folder)} took longer than {cell_timeout} s; give it more with --cell-timeout", ""
    except DeadKernelError:
        return f"the kernel died in {_last_started_cell(folder)}: it was killed or ran out of memory", ""
    except NoSuchKernel:
        return "there is no Jupyter kernel python3; install it with: python -m ipykernel install --sys-prefix", ""
    ended = (output.get("ename") for cell in executed.cells for output in cell.get("outputs", ()))
    if "SystemExit" in ended:  # a training that was told to stop; papermill takes it for success
        return f"{_last_started_cell(folder)} was stopped; run it again to resume", ""
    return "", ""


def _watched(peak: PeakMemory, threads: int, home: Path) -> type[AsyncKernelManager]:
    """What starts a kernel in the folder `home`, with so many threads, and tells `peak` which process it is.

    papermill's own `cwd` would move this whole process, which may run other notebooks.
    """
    more = {"OMP_NUM_THREADS": str(threads)} if threads and "OMP_NUM_THREADS" not in os.environ else {}

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **options):
            await super().start_kernel(**{"env": os.environ | more, "cwd": str(home), **options})
            peak.process = self.provisioner.pid

    return Manager


def _last_started_cell(folder: Path) -> str:
    """The code cell that was running at the end, by its number and first line. papermill calls all completed then."""
    cells = nbformat.read(folder / EXECUTED, as_version=4).cells
    codes = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    # counted here: a kernel that dies at once leaves no execution count in the cell
    started = [(n, cell) for n, cell in enumerate(codes, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "starting it"
    number, cell = started[-1]
    return f"cell In [{number}] ({cell.source.strip().splitlines()[0]})"
