"""`ovs-lite reproduce`: run the notebooks, several at once, each only when it has to, and write the report.

A run is a folder runs/<profile>/ with one folder per notebook (see `stage`).
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import torch
from tqdm.auto import tqdm

from ovs_lite.config import Profile, get_profile, override, read_changes
from ovs_lite.files import data_root, printable, project_root, runs_root, write_json
from ovs_lite.locks import exclusive
from ovs_lite.methods.registry import split_changes
from ovs_lite.reproduce.memory import machine_memory
from ovs_lite.reproduce.plan import known_seconds
from ovs_lite.reproduce.provenance import cores, run_facts
from ovs_lite.reproduce.report import RUN, write_report
from ovs_lite.reproduce.stage import CELL_TIMEOUT, StageResult, run_stage

MOST_AT_ONCE = 4
GRACE = 30.0  # seconds from the first SIGTERM: for a step of a training and its checkpoint
MEMORY_OF_ONE = 4000  # megabytes; the largest notebook of profile lite takes 3,300


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
                return _in_turn(chosen, one) if jobs == 1 else _at_once(_groups(chosen, run), one, jobs)
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
    for notebook in tqdm(notebooks, desc="notebooks", unit="notebook"):
        results.append(one(notebook, 0))
        if results[-1].status == "failed":
            break
    return results


def _at_once(groups: Sequence[Sequence[Path]], one: Callable[[Path, int], StageResult], jobs: int) -> list[StageResult]:
    """A group after the other; in threads, as all work is done by the kernels, which end where this process has to."""
    results: list[StageResult] = []
    total = sum(map(len, groups))
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=total, desc="notebooks", unit="notebook") as bar:
        for group in groups:
            results += _run_group(pool, group, one, min(jobs, len(group) or 1), bar)
            if any(result.status == "failed" for result in results):
                break
    return sorted(results, key=lambda result: result.name)


def _run_group(
    pool: Executor, group: Sequence[Path], one: Callable[[Path, int], StageResult], jobs: int, bar: tqdm
) -> list[StageResult]:
    """Those of a group, `jobs` at once, each with its share of the cores; after a failure none is started."""
    waiting, results, threads = list(group), [], max(1, cores() // jobs)
    running: set[Future[StageResult]] = set()
    others = set(psutil.Process().children(recursive=True))  # a caller's own
    try:
        while running or waiting:
            while waiting and len(running) < jobs:
                running.add(pool.submit(one, waiting.pop(0), threads))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            results += [future.result() for future in done]
            bar.update(len(done))
            if any(result.status == "failed" for result in results):
                waiting.clear()
    except BaseException:
        _end_kernels(running, others)
        raise
    return results


def _end_kernels(running: set[Future[StageResult]], others: set[psutil.Process]) -> None:
    """Until no notebook runs: one that has no kernel yet will start one. What has not ended after GRACE is killed."""
    end = time.monotonic() + GRACE
    while running:
        for process in set(psutil.Process().children(recursive=True)) - others:
            with suppress(psutil.Error):  # it has ended meanwhile
                process.terminate() if time.monotonic() < end else process.kill()
        running = wait(running, timeout=1).not_done


def _groups(notebooks: Sequence[Path], run: Path) -> list[list[Path]]:
    """The longest begin, so that the last one to be started is short; then those that read what others found.

    A notebook whose metadata say `"ovs_lite": {"after_all": true}` is one of the latter.
    """
    groups: list[list[Path]] = [[], []]
    for notebook in sorted(notebooks, key=lambda notebook: -known_seconds(notebook.stem, run)):
        metadata = nbformat.read(notebook, as_version=4).metadata
        groups[bool(metadata.get("ovs_lite", {}).get("after_all"))].append(notebook)
    return groups


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
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
