"""`ovs-lite reproduce`: run the notebooks, several at once, each only when it has to, and write the report.

A run is a folder runs/<profile>/ with one folder per notebook (see `stage`).
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from papermill.iorw import local_file_io_cwd
from tqdm.auto import tqdm

from ovs_lite.config import Profile, get_profile, override, read_changes
from ovs_lite.files import data_root, printable, project_root, runs_root, write_json
from ovs_lite.locks import exclusive
from ovs_lite.methods.registry import split_changes
from ovs_lite.notebook.others import PAUSE, UNFINISHED, waits, write_unfinished
from ovs_lite.reproduce.memory import machine_memory
from ovs_lite.reproduce.plan import known_seconds
from ovs_lite.reproduce.provenance import cores, run_facts
from ovs_lite.reproduce.report import RUN, write_report
from ovs_lite.reproduce.stage import CELL_TIMEOUT, StageResult, run_stage

MOST_AT_ONCE = 4
BAR = {"desc": "notebooks", "unit": "notebook"}
GRACE = 30.0  # seconds from the first SIGTERM: for a step of a training and its checkpoint
MEMORY_OF_ONE = 4200  # megabytes; the largest notebook of profile lite takes 4,000; one that waits keeps its own


def reproduce(
    profile: str = "lite",
    only: Sequence[str] = (),
    fresh: bool = False,
    seed: int = 0,
    notebooks_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
    cell_timeout: int = CELL_TIMEOUT,
    config: str | Path | None = None,
    jobs: int | None = None,
) -> list[StageResult]:
    """Build the data where it is missing, run the notebooks that are not up to date, and write the report.

    only: numbers or names of notebooks, e.g. ("01",). fresh: forget what earlier runs left of the chosen notebooks.
    cell_timeout: seconds that one cell may take. config: YAML file that changes the profile or recipes.
    jobs: notebooks at once, each with its share of the CPU cores; None: what the machine can hold (`default_jobs`).
    After the first failure none is started any more; the next call resumes there.
    Returns one result per notebook reached; raises ValueError or FileNotFoundError for wrong names, no notebooks or
    damaged data, BlockingIOError where another process works in the run's folder, other OSErrors where that cannot be
    written.
    """
    of_profile, of_recipes = split_changes({} if config is None else read_changes(config))
    resolved = override(get_profile(profile), {**of_profile, "seed": seed})
    every = find_notebooks(notebooks_dir, resolved)
    chosen = select(every, only)
    if cell_timeout < 1:
        raise ValueError(f"got a limit of {cell_timeout} s for a cell, expected at least 1")
    if jobs is not None and jobs < 1:
        raise ValueError(f"got {jobs} notebooks at once, expected at least 1")
    jobs = min(jobs or default_jobs(), len(chosen))
    run = Path(runs_dir or runs_root()) / resolved.name

    def one(notebook: Path, threads: int) -> StageResult:
        result = run_stage(notebook, run / notebook.stem, resolved, of_recipes, fresh, cell_timeout, threads)
        tqdm.write(_line(result))
        return result

    with exclusive(run):
        _build_data(resolved, jobs)
        write_json(run / RUN, run_facts(resolved, config, jobs))
        try:
            with _kernel_environment(run.parent, config):
                if jobs == 1:
                    return _in_turn(chosen, one)
                # the longest begin, so that the last one to be started is short
                return _at_once(sorted(chosen, key=lambda it: -known_seconds(it.stem, run)), one, jobs, run)
        finally:
            report = write_report(run, [notebook.stem for notebook in every])
            tqdm.write(printable(f"report: {report}"))


def default_jobs() -> int:
    """Notebooks that this machine runs at once: one with a GPU, else one per core, four at most, as memory allows."""
    if torch.cuda.is_available():
        return 1
    return max(1, min(cores(), MOST_AT_ONCE, machine_memory() // MEMORY_OF_ONE))


def find_notebooks(folder: str | Path | None = None, profile: Profile | None = None) -> list[Path]:
    """The notebooks NN_name.ipynb in order: of `folder`, else of the project, else next to the installed package.

    profile: one that reads photographs has its own, in the folder `photo` below.
    """
    project, package = project_root() / "notebooks", Path(__file__).parents[2] / "notebooks"
    candidates = [Path(folder)] if folder else [project, package]
    below = "photo" if profile and profile.photos else "."
    for candidate in candidates:
        found = sorted((candidate / below).glob("[0-9][0-9]_*.ipynb"))
        if found:
            return found
    looked = " and ".join(str(candidate.resolve()) for candidate in candidates)
    raise FileNotFoundError(f"no notebooks NN_name.ipynb in {looked}; run in the checkout or use --notebooks")


def select(notebooks: Sequence[Path], only: Sequence[str]) -> list[Path]:
    """Those whose number or name is in `only`; all when it is empty. Raises ValueError with the names there are."""
    names = {key: notebook for notebook in notebooks for key in (notebook.stem, notebook.stem[:2])}
    unknown = [name for name in only if name.removesuffix(".ipynb") not in names]
    if unknown:
        available = ", ".join(notebook.stem for notebook in notebooks)
        raise ValueError(f"got notebook {', '.join(unknown)}, expected a number or name of: {available}")
    wanted = {names[name.removesuffix(".ipynb")] for name in only}
    return [notebook for notebook in notebooks if notebook in wanted or not only]


def _in_turn(notebooks: Sequence[Path], one: Callable[[Path, int], StageResult]) -> list[StageResult]:
    results: list[StageResult] = []
    for notebook in tqdm(notebooks, **BAR):
        results.append(one(notebook, 0))
        if results[-1].status == "failed":
            break
    return results


def _at_once(
    notebooks: Sequence[Path], one: Callable[[Path, int], StageResult], jobs: int, run: Path
) -> list[StageResult]:
    """`jobs` at once, each with its share of the cores; after a failure none is started.

    One that waits for the others holds no place. In threads, as all work is done by the kernels, which end where this
    process has to.
    """
    results: list[StageResult] = []
    running: dict[Future[StageResult], str] = {}
    queued, threads = list(notebooks), max(1, cores() // jobs)
    others = set(psutil.Process().children(recursive=True))  # a caller's own
    # papermill's folder is one for all threads; entered around them, none that ends early puts an older one back
    with local_file_io_cwd(), ThreadPoolExecutor(len(notebooks)) as pool, tqdm(total=len(notebooks), **BAR) as bar:
        write_unfinished(run, [notebook.stem for notebook in notebooks])
        try:
            while running or queued:
                while queued and sum(not waits(run / name) for name in running.values()) < jobs:
                    notebook = queued.pop(0)
                    running[pool.submit(one, notebook, threads)] = notebook.stem
                done = wait(running, timeout=PAUSE, return_when=FIRST_COMPLETED).done
                if not done:
                    continue
                results += [future.result() for future in done]
                running = {future: name for future, name in running.items() if future not in done}
                bar.update(len(done))
                if any(result.status == "failed" for result in results):
                    queued.clear()
                write_unfinished(run, [*running.values(), *(notebook.stem for notebook in queued)])
        except BaseException:
            _end_kernels(set(running), others)
            raise
        finally:
            (run / UNFINISHED).unlink(missing_ok=True)
    return sorted(results, key=lambda result: result.name)


def _end_kernels(running: set[Future[StageResult]], others: set[psutil.Process]) -> None:
    """Until no notebook runs: one that has no kernel yet will start one. What has not ended after GRACE is killed."""
    end = time.monotonic() + GRACE
    while running:
        for process in set(psutil.Process().children(recursive=True)) - others:
            with suppress(psutil.Error):  # it has ended meanwhile
                process.terminate() if time.monotonic() < end else process.kill()
        running = wait(running, timeout=1).not_done


def _line(result: StageResult) -> str:
    after = f" after {result.seconds:.0f} s, {result.memory} MB of memory" if result.seconds else ""
    lines = [f"{result.name}: {result.status}{after}" + (f" ({result.message})" if result.message else "")]
    return printable("\n".join(lines + [result.traceback] * bool(result.traceback)))


def _build_data(profile: Profile, processes: int) -> None:
    from ovs_lite.data.record import load_split
    from ovs_lite.iconworld.build import build_all
    from ovs_lite.notebook import load_photos

    if profile.photos:
        load_photos(profile)
        return
    for folder in build_all(profile.data, data_root(), profile.seed, processes=processes):
        load_split(folder)  # compares its digests


@contextmanager
def _kernel_environment(runs: Path, config: str | Path | None):
    """What kernels inherit: absolute folders, line-wise progress, and a package that imports without installation."""
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    folders = {"OVS_DATA": str(data_root().resolve()), "OVS_RUNS": str(runs.resolve())}
    folders |= {"OVS_CONFIG": str(Path(config).resolve())} if config else {}
    before = dict(os.environ)
    os.environ.update({**folders, "OVS_HEADLESS": "1", "PYTHONPATH": paths})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
