"""`ovs-lite reproduce`: run notebooks and write the report; with --claim, those that settle the claims."""

import argparse
from pathlib import Path

from ovs_lite.config import get_profile
from ovs_lite.files import printable, runs_root
from ovs_lite.notebook.logs import claim_line, read_claims
from ovs_lite.reproduce.pipeline import find_notebooks, reproduce
from ovs_lite.reproduce.plan import expected, notebooks_of


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for. Returns 1 where a notebook failed, else 0; raises as `reproduce` does."""
    only, folder = args.only, Path(args.runs or runs_root()) / args.profile
    if args.claim:
        notebooks = notebooks_of(args.claim, find_notebooks(args.notebooks, get_profile(args.profile)))
        only = [notebook.stem for notebook in notebooks]
        for line in expected(notebooks, folder, args.profile):
            print(printable(line), flush=True)
    folders = (args.notebooks, args.runs)
    results = reproduce(args.profile, only, args.fresh, args.seed, *folders, args.cell_timeout, args.config, args.jobs)
    for name in args.claim:
        rows = [row for stem in only for row in read_claims(folder / stem) if row["id"] == name]
        print("\n".join(map(claim_line, rows)) or f"claim {name}: not run")
    return int(any(result.status == "failed" for result in results))
