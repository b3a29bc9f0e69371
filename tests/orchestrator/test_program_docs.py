"""The examples of docs/scripts.md, run as they stand there, with fewer trials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import State
from orchestrator.executors.debug import DebugExecutor
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.test_program_ends import records

PAGE = Path(__file__).parents[2] / "docs" / "scripts.md"
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.mark.slow
@pytest.mark.parametrize(("sweep", "without", "proof"), [
    ("sweep.yaml", "  plain: {}\n", {"steps": 60, "grad_evals": 60}),  # two trials in test_program_kinds.py
    ("trial.yaml", "", {"grad_evals": 60}),
    ("task.yaml", "", {}),
])  # fmt: skip
def test_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: str, without: str, proof: dict[str, float]
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = re.sub("trials_per_arm: 4", "trials_per_arm: 1", FILES[sweep].replace("confirm: 6", "confirm: 0"))
    assert without in text
    text = text.replace(without, "", 1) if without else text
    spec = sweep_file.loads(text, sweep)
    folder = runner.open_folder(spec, text, tmp_path / "runs", runner.provenance())
    with folder.hold():
        runner.run(spec, folder, DebugExecutor(), NoTracker())
    found = list(records(folder).values())
    assert len(found) == (1 if without else 2)
    for one in found:
        assert one.result.state is State.COMPLETE, one.result.error
        assert proof.items() <= one.result.proof.items()
    assert len({(one.result.init_digest, one.result.data_digest) for one in found}) == 1
