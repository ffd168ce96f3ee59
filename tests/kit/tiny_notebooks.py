"""Tiny notebooks and a run of them, for tests of the runner."""

from pathlib import Path

import nbformat

from ovs_lite.iconworld import build
from ovs_lite.reproduce import fingerprint, pipeline

PARAMETERS = 'profile = "lite"\nseed = 0\nout = "."'


def write_notebook(path, *sources, prose="About nothing."):
    """A notebook with a parameters cell and one code cell per source."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose)])
    notebook.cells.append(nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)


def reproduce(world, **options):
    """Results of a run, by notebook."""
    options = {"jobs": 1} | options
    results = pipeline.reproduce("smoke", notebooks_dir=world / "notebooks", runs_dir=world / "runs", **options)
    return {result.name: result for result in results}


def reproduce_until_stopped(world, jobs):
    """In a process of its own, which a signal ends."""
    world = Path(world)
    build.build_all = lambda *_, **__: []
    fingerprint.PACKAGE = world / "package"
    pipeline.GRACE = 2.0
    reproduce(world, jobs=int(jobs))


def statuses(results):
    """Only the statuses."""
    return [result.status for result in results.values()]
