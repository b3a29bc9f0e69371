"""The systems whose files are converted, each by one function."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Protocol

from orchestrator.convert import katib, optuna_space, ray_tune, wandb
from orchestrator.convert.draft import Draft
from orchestrator.convert.program import NoListError
from orchestrator.definition import foreign
from orchestrator.definition.errors import SpecError
from orchestrator.definition.location import Where
from orchestrator.definition.yaml12 import Document, YamlError, parse

TITLES = (foreign.WANDB, foreign.KATIB, foreign.OPTUNA, foreign.RAY)


class Converter(Protocol):
    """`by`: the parameter whose values become arms."""

    def __call__(self, document: Document, text: str, *, by: str = "") -> Draft:
        """The draft. Raises program.NoListError."""
        ...


SYSTEMS: Mapping[str, Converter] = {
    "wandb": wandb.convert,
    "optuna": optuna_space.convert,
    "katib": katib.convert,
    "ray": ray_tune.convert,
}
"""Word of `geosweep convert` -> its converter."""
OF_PYTHON: Mapping[str, str] = {
    "wandb": "write the dict that it passes to wandb.sweep as YAML or JSON: json.dump(config, open('sweep.json', 'w'))",
    "optuna": "write the search space as JSON, {NAME: {name: FloatDistribution, attributes: {low: .., high: .., log: "
    "..}}}: of a trial, {n: json.loads(optuna.distributions.distribution_to_json(d)) for n, d in "
    "trial.distributions.items()}. For finished trials: geosweep import optuna",
    "katib": "convert katib reads the Experiment as YAML: kubectl get experiment NAME -o yaml",
    "ray": "write param_space and tune_config as YAML, with texts such as 'tune.loguniform(1e-4, 1e-1)'",
}
"""What to convert instead of a program."""


def convert(word: str, text: str, file: str, *, by: str = "") -> Draft:
    """The draft of a file of the system `word`. Raises SpecError for a file of another one, or of none."""
    if file.endswith((".py", ".ipynb")):
        raise SpecError(file, 1, 1, (), f"is Python, which is not converted; {OF_PYTHON[word]}")
    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    where = Where(file, document)
    value = document.value
    if not isinstance(value, dict) or not value:
        raise where.error((), "has no keys with values; there is nothing to convert")
    if value.keys() & foreign.OURS:
        raise where.error((), f"is already a geosweep sweep; nothing to convert: geosweep validate {shlex.quote(file)}")
    found = foreign.system(value)
    if found is not None and found.word != word:
        raise where.error((), f"is {found.title}; use: geosweep convert {found.word} {shlex.quote(file)}")
    if found is None and not _could_be(word, value):
        raise where.error((), f"is not a file that convert {word} knows")
    try:
        return SYSTEMS[word](document, text, by=by)
    except NoListError:
        raise
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        title = next(one.title for one in TITLES if one.word == word)
        raise where.error(
            (), f"does not have the structure of {title}: a mapping or a list is something else ({error})"
        ) from None


def _could_be(word: str, value: Mapping[str, object]) -> bool:
    """A file that `foreign.system` does not vouch for, but that says enough for the system that was named."""
    if word == "wandb":
        return bool(value.keys() & foreign.WANDB_KEYS)
    if word == "ray":
        return any(isinstance(one, dict) and one.keys() & foreign.RAY_KEYS for one in [value, *value.values()])
    return False
