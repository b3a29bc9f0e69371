"""The id of a trial: the name of its folder, and its key in tables, trackers and the witness.

    adamw-0003-s1000      arm adamw, configuration 3, seed 1000
    adamw@2-0003-s1000    the same in the arm's second independent study

An arm's name may contain anything but `@` and `/`: number and seed are parsed from the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PATTERN = re.compile(
    r"(?P<arm>[^@/]+)(?:@(?P<study>[1-9]\d*))?-(?P<number>\d{4,})-s(?P<seed>\d+)", re.ASCII | re.DOTALL
)


@dataclass(frozen=True)
class TrialId:
    """One trial of a sweep; `str` gives its text."""

    arm: str
    number: int
    """The configuration's number in its study, from 0."""
    seed: int
    study: int | None = None
    """Which independent study of the arm, from 1; None in a sweep with one study per arm."""

    def __str__(self) -> str:
        study = "" if self.study is None else f"@{self.study}"
        return f"{self.arm}{study}-{self.number:04d}-s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> TrialId:
        """The id for `text`. Raises ValueError for anything that `str` cannot give."""
        match = PATTERN.fullmatch(text)
        if match is not None:
            study = match["study"]
            found = cls(match["arm"], int(match["number"]), int(match["seed"]), None if study is None else int(study))
            if str(found) == text:
                return found
        raise ValueError(f"{text!r} is not a trial id of the form ARM-NUMBER-sSEED or ARM@STUDY-NUMBER-sSEED")
