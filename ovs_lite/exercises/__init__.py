"""Exercises that answer: each notebook ends with some, `check` says what was expected, what was got, and where.

from ovs_lite import exercises
exercises.check("04-2", my_function)     # "04-2 solved", "04-2 not yet", or the first case that fails
exercises.planted("04-3")                # a bug hunt: prints the code that has the bug

A file for each notebook; the number of an exercise begins with its notebook's. Nothing here stops a headless run.
"""

from ovs_lite.exercises import (
    contrast,
    crops,
    grounding,
    mask_prompts,
    matching,
    proposals,
    scores,
    text_masks,
)
from ovs_lite.exercises.judging import EXERCISES, Exercise, Verdict, check, planted

__all__ = [
    "EXERCISES", "Exercise", "Verdict", "check", "contrast", "crops", "grounding", "mask_prompts", "matching",
    "planted", "proposals", "scores", "text_masks",
]  # fmt: skip
