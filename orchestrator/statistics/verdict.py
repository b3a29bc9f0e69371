"""The records of a comparison: the pairs, what each rests on, and the whole as `geosweep compare --json` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.definition.racing import Raced
from orchestrator.definition.states import Goal

if TYPE_CHECKING:
    from orchestrator.statistics.pairing import Unit
    from orchestrator.statistics.studies import Settling

SCHEMA = "geosweep/compare/1"


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Where the noise of a pair comes from: variances, in the metric's units squared."""

    within: float
    """Of training seeds around their study's mean."""
    between: float
    """Of studies' means: the search."""
    confirm: float
    """Confirm seeds per study; the harmonic mean where studies differ."""
    share_of_search: float


@dataclass(frozen=True, kw_only=True)
class AtEqualSeconds:
    """A pair at the same time instead of the same budget."""

    seconds: float
    difference: float
    interval: tuple[float, float]
    p_holm: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """How far something is proved."""

    level: str
    """proved, declared or unknown."""
    why: str
    reports: str = ""
    """Where the reports of scripts end, if that is not the budget."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a pair rests on."""

    pairing: Level
    compute: Level

    def parts(self) -> dict[str, Level]:
        """By name."""
        return {"pairing": self.pairing, "compute": self.compute}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A verdict that is kept if the sweep is extended."""

    a: str
    b: str
    difference: float
    verdict: str
    unit: Unit
    n: int
    p_holm: float
    p_equivalent: float | None
    look: int | None = None
    """The look that settled it, from 1; None: the one that is made now."""

    def document(self) -> dict[str, Any]:
        """As an extension records it."""
        found = asdict(self)
        if self.look is None:
            del found["look"]
        return found


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A against B; `difference` is A - B in the metric's own units."""

    a: str
    b: str
    unit: Unit
    """What is counted: studies (the verdict is about methods) or seeds (about two configurations)."""
    n: int
    """Units; of unpaired ones, the smaller number."""
    difference: float
    interval: tuple[float, float]
    confidence: float
    """Of all intervals: 1 - alpha."""
    p: float
    """For the null that the difference lies within the margin (is zero, without one); 1 if the mean lies within."""
    p_holm: float
    p_equivalent: float | None
    """For the null that the difference lies outside the margin, after Holm; None without a margin."""
    wilcoxon_p: float
    outperforms: float
    outperforms_interval: tuple[float, float]
    verdict: str
    """A is better, worse, equivalent or inconclusive."""
    alone: Literal["p", "interval", "equivalence"] | None
    """inconclusive although one of two conditions holds: p, the interval, or the interval within the margin."""
    detectable: float | None
    """The difference that this many units detect with 80% power, given the observed spread."""
    components: Noise | None
    """For studies with two confirm seeds."""
    settles: Settling | None
    """inconclusive studies: what would settle them."""
    seeds_needed: int | None
    """inconclusive seeds: the total number that would settle the observed difference; None if no number would."""
    more_seeds: int | None
    """The same, in addition to the existing seeds."""
    searched: Mapping[str, int] | None
    """Arm -> configurations per study, where known."""
    study_trials: int | None
    """Trials needed for one more study of an arm, where known."""
    counts: tuple[int, int] | None = None
    """Units of A and of B, if they are not paired."""
    own_task: Sequence[str] = ()
    """Parameters of the task that each arm searched by itself."""
    level: float | None = None
    """Of the tests, where it is not 1 - confidence: what is left for this look at the results."""
    currency: str | None = None
    """The budget of both, in words; empty: unknown. None: not compared by sweeps."""
    imported: str = ""
    """For results that others trained: who vouches for their pairing."""
    diverged: Sequence[str] = ()
    """Which of the two have no value of their own; the difference is that of the task's stand-ins."""
    at_equal_seconds: AtEqualSeconds | None = None
    proof: Proof | None = None
    settled_by: Settled | None = None

    def document(self) -> dict[str, Any]:
        """As JSON; what was not asked is left out."""
        given = {name: getattr(self, name) for name in LATER}
        left_out = {name for name, value in given.items() if value is None or value in ("", (), [])}
        if self.currency is not None:
            left_out -= {"currency", "at_equal_seconds"}
        found = {name: value for name, value in asdict(self).items() if name not in left_out}
        for level in found.get("proof", {}).values():
            if not level["reports"]:
                del level["reports"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


LATER = {
    "counts", "own_task", "level", "currency", "imported", "diverged", "at_equal_seconds", "proof", "settled_by",
}  # fmt: skip
"""Fields of a pair that are left out of its document where there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Means over an arm's confirm trials; None where unknown."""

    grad_evals: float | None
    seconds: float | None
    flops: float | None


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How often results were looked at, with the last look to come, and what the earlier ones spent of alpha."""

    looks: int
    alpha_spent: float


@dataclass(frozen=True, kw_only=True)
class LookTaken(Looks):
    """The same of a comparison that was made."""

    level: float
    """At which its verdicts were found."""
    alpha_at_most: float
    """Of all looks together."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A comparison of arms."""

    sweep_id: str
    """Of several sweeps, their ids."""
    metric: str
    goal: Goal
    baseline: str | None
    """None: all pairs were compared."""
    margin: float
    alpha: float
    unit: Unit
    units: int
    """The most that an arm has."""
    studies: int
    seeds: Sequence[int]
    seeds_of: Mapping[str, int]
    """Arm -> number of its confirm trials."""
    diverged: Sequence[tuple[str, int]]
    """Arm and study, of which every confirm trial did."""
    notes: Sequence[str]
    race: Raced | None
    """What the race of the confirm stage decided."""
    pairs: Sequence[Pair]
    twin: Pair | None
    """The baseline's identical copy against it."""
    paired: bool = True
    budget: str = ""
    """Of each trial, in words."""
    arms: Mapping[str, Cost] | None = None
    """None: not of one sweep."""
    imported: str = ""
    looks: LookTaken | None = None
    """None if there is only one."""
    seal: str | None = None
    """Its hash; of several sweeps, theirs. None: not compared by sweeps."""
    exploratory: Sequence[str] = ()
    """Why it is not the comparison that was declared before the first trial."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {"schema": SCHEMA, **{name: getattr(self, name) for name in ALWAYS}}
        found |= {
            "diverged": [{"arm": arm, "study": study} for arm, study in self.diverged],
            "pairs": [pair.document() for pair in self.pairs],
            "twin": self.twin and self.twin.document(),
            "race": self.race and self.race.document(),
        }
        if not self.paired:
            found["paired"] = False
        if self.arms is not None:
            found |= {"budget": self.budget, "arms": {arm: asdict(cost) for arm, cost in self.arms.items()}}
        if self.imported:
            found["imported"] = self.imported
        if self.looks is not None:
            found["looks"] = asdict(self.looks)
        if self.seal is not None:
            found["seal"] = self.seal
            found.setdefault("budget", self.budget)
            found["exploratory"] = list(self.exploratory)
        return found


ALWAYS = (
    "sweep_id", "metric", "goal", "baseline", "margin", "alpha", "unit", "units", "studies", "seeds", "seeds_of",
    "diverged", "notes", "race", "pairs", "twin",
)  # fmt: skip
"""Fields that every document has, in its order."""
