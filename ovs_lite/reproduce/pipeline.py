"""`ovs-lite reproduce`: run the notebooks in order, each only when it has to, and write the report.

A run is a folder runs/<profile>/ with one folder per notebook. stage.json is written last, so a notebook that was
killed has none and is run again; one that is done is skipped for as long as nothing it was made from has changed and
its files are as it left them (see `products`).
made_from.json is written first: checkpoints that a broken run left serve the next one only where it is equal.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from ovs_lite.config import Profile, get_profile, override, read_changes, to_dict
from ovs_lite.files import data_root, printable, project_root, runs_root, write_json
from ovs_lite.locks import exclusive
from ovs_lite.methods.registry import split_changes
from ovs_lite.notebook.logs import CLAIMS, METRICS
from ovs_lite.reproduce.fingerprint import LIBRARIES, changes, fingerprint, library_version
from ovs_lite.reproduce.products import EXECUTED, PAGE, STAGE, damaged, read_json, read_stage, write_stage
from ovs_lite.reproduce.report import RUN, write_notebook_page, write_report

CELL_TIMEOUT = 3600
MADE_FROM = "made_from.json"
QUIET = "--log-level=50"  # a kernel's notes on its transport and its death would tear the progress bars
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class StageResult:
    """What became of one notebook. status: "done", "up to date" or "failed"; message: why; traceback: of a failure."""

    name: str
    status: str
    message: str = ""
    traceback: str = ""
    seconds: float = 0.0


def reproduce(
    profile: str = "lite",
    only: Sequence[str] = (),
    fresh: bool = False,
    seed: int = 0,
    notebooks_dir: str | Path | None = None,
    runs_dir: str | Path | None = None,
    cell_timeout: int = CELL_TIMEOUT,
    config: str | Path | None = None,
) -> list[StageResult]:
    """Build the data where it is missing, run the notebooks that are not up to date, and write the report.

    only: numbers or names of notebooks, e.g. ("01",). fresh: forget what earlier runs left of the chosen notebooks.
    cell_timeout: seconds that one cell may take. config: YAML file that changes the profile or recipes.
    Stops after the first failure; the next call resumes there.
    Returns one result per notebook reached; raises ValueError or FileNotFoundError for wrong names, no notebooks or
    damaged data, BlockingIOError where another process works in the run's folder, other OSErrors where that cannot be
    written.
    """
    of_profile, of_recipes = split_changes({} if config is None else read_changes(config))
    resolved = override(get_profile(profile), {**of_profile, "seed": seed})
    every = find_notebooks(notebooks_dir)
    chosen = select(every, only)
    if cell_timeout < 1:
        raise ValueError(f"got a limit of {cell_timeout} s for a cell, expected at least 1")
    run = Path(runs_dir or runs_root()) / resolved.name
    results: list[StageResult] = []
    with exclusive(run):
        _build_data(resolved)
        write_json(run / RUN, _run_facts(resolved))
        try:
            with _kernel_environment(run.parent, config), tqdm(chosen, desc="notebooks", unit="notebook") as bar:
                for notebook in bar:
                    result = _stage(notebook, run / notebook.stem, resolved, of_recipes, fresh, cell_timeout)
                    tqdm.write(_line(result))
                    results.append(result)
                    if result.status == "failed":
                        break
        finally:
            report = write_report(run, [notebook.stem for notebook in every])
            tqdm.write(printable(f"report: {report}"))
    return results


def find_notebooks(folder: str | Path | None = None) -> list[Path]:
    """The notebooks NN_name.ipynb in order: of `folder`, else of the project, else next to the installed package."""
    project, package = project_root() / "notebooks", Path(__file__).parents[2] / "notebooks"
    candidates = [Path(folder)] if folder else [project, package]
    for candidate in candidates:
        found = sorted(candidate.glob("[0-9][0-9]_*.ipynb"))
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


def _stage(
    notebook: Path, folder: Path, profile: Profile, recipes: dict[str, Any], fresh: bool, cell_timeout: int
) -> StageResult:
    parameters = {"profile": profile.name, "seed": profile.seed, "out": str(folder.resolve())}
    now = fingerprint(notebook, to_dict(profile) | recipes, data_root() / profile.data.folder)
    reason = "asked to run afresh" if fresh else why_run(folder, now)
    if not reason:
        finished = read_stage(folder).get("finished")
        return StageResult(notebook.stem, "up to date", f"code, package, parameters and data as on {finished}")
    tqdm.write(printable(f"{notebook.stem}: running ({reason})"))
    if fresh or read_json(folder / MADE_FROM) != now or damaged(folder, read_stage(folder)):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MADE_FROM, now)
    for left in (STAGE, METRICS, CLAIMS, EXECUTED, PAGE):
        (folder / left).unlink(missing_ok=True)
    start = time.perf_counter()
    message, traceback = _execute(notebook, folder, parameters, cell_timeout)
    seconds = round(time.perf_counter() - start, 1)
    if (folder / EXECUTED).exists():
        write_notebook_page(folder, notebook.stem)
    result = StageResult(notebook.stem, "failed" if message else "done", message, traceback, seconds)
    write_stage(folder, {**asdict(result), "finished": time.strftime("%Y-%m-%d %H:%M:%S %z")})
    return result


def _execute(notebook: Path, folder: Path, parameters: dict[str, Any], cell_timeout: int) -> tuple[str, str]:
    """Run a notebook. Returns ("", "") or a plain sentence on what went wrong and the traceback, if it left one."""
    bar = {"desc": notebook.stem, "leave": False}
    try:
        papermill.execute_notebook(
            notebook, folder / EXECUTED, parameters, kernel_name="python3", language="python",
            cwd=notebook.parent.resolve(), progress_bar=bar, execution_timeout=cell_timeout, extra_arguments=[QUIET],
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
    return "", ""


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


def _line(result: StageResult) -> str:
    after = f" after {result.seconds:.0f} s" if result.seconds else ""
    lines = [f"{result.name}: {result.status}{after}" + (f" ({result.message})" if result.message else "")]
    return printable("\n".join(lines + [result.traceback] * bool(result.traceback)))


def _build_data(profile: Profile) -> None:
    from ovs_lite.data.record import load_split
    from ovs_lite.iconworld.build import build_all

    for folder in build_all(profile.data, data_root(), profile.seed, progress=True):
        load_split(folder)  # compares its digests


def _run_facts(profile: Profile) -> dict[str, Any]:
    libraries = {name: library_version(name) for name in LIBRARIES}
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpu cores": os.cpu_count()}
    return {"profile": to_dict(profile), "machine": machine, "library": libraries}


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
