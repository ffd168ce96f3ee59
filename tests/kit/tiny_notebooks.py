"""Tiny notebooks and a run of them, for tests of the runner."""

import nbformat

from ovs_lite.reproduce import pipeline

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


def statuses(results):
    """Only the statuses."""
    return [result.status for result in results.values()]
