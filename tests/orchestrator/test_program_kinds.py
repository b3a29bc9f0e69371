"""Scripts that nobody here would have written so, run as they are and with three lines; what is proved of each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results
from orchestrator.definition.states import State
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial import noticed
from orchestrator.trial.job import Result
from tests.orchestrator.command import environment, fresh
from tests.orchestrator.test_program_ends import PROGRAMS, records, run

pytestmark = pytest.mark.slow  # each starts an interpreter that imports torch
TEXT = """
schema_version: 1
name: kind
task:
{task}
metric: {{name: {metric}, goal: minimize}}
arms: {arms}
method: {{name: grid}}
budget: {{unit: {unit}, per_trial: {budget}}}
seeds: {{tune: 1, confirm: 0}}
evaluations: 2
"""
PLAIN = r"\[(?P<step>\d+)/\d+\] train loss: (?P<train_loss>\S+) \| val loss: (?P<val_loss>\S+)"
NANO = r"step (?P<step>\d+): train loss (?P<train_loss>[\d.]+), val loss (?P<val_loss>[\d.]+)"


def trained(tmp_path: Path, *task: str, arms: str, unit: str = "steps", budget: float = 16, metric: str = "val_loss"
            ) -> list[tuple[Result, list[dict[str, Any]], Path]]:  # fmt: skip
    text = TEXT.format(task="\n".join(f"  {line}" for line in task), arms=arms, unit=unit, budget=budget, metric=metric)
    folder = run(text, tmp_path)
    found = []
    for trial, one in records(folder).items():
        assert one.result.state is State.COMPLETE, one.result.error
        found.append((one.result, MetricLog(folder.trial(trial) / "metrics.jsonl").points(), folder.trial(trial)))
    return found


def test_argparse(tmp_path: Path) -> None:
    a, b = trained(
        tmp_path,
        "program: plain.py",
        'command: ["${interpreter}", "${program}", "${args_no_boolean_flags}"]',
        "seed_arg: --seed",
        "budget_arg: --steps",
        f"metrics: [{{pattern: '{PLAIN}'}}]",
        arms="{a: {parameters: {lr: {values: [0.1, 0.01]}, nesterov: true}}}",
        budget=40,
    )
    assert [p.step for p in a[1]] == [10, 20, 30, 40]
    assert set(a[1][-1].metrics) == {"train_loss", "val_loss"}
    counts = {"grad_evals": 40.0, "steps": 40, "told": 40}
    for result, *_ in (a, b):
        assert result.proof == {"seed": True, "budget": "given", "batches": 16, **counts}
    assert a[0].init_digest
    assert (a[0].init_digest, a[0].data_digest) == (b[0].init_digest, b[0].data_digest)  # one seed
    assert a[0].value != b[0].value


def test_hydra_like_with_json_lines(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: hydra_like.py",
        'command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]',
        "seed_arg: seed",
        "budget_arg: trainer.max_epochs",
        "output_arg: out",
        "metrics: [{jsonl: '${trial_dir}/log.jsonl'}]",
        "prove: false",
        arms="{a: {parameters: {optim.lr: 0.01, model.width: 8}}}",
        unit="epochs",
        budget=3,
        metric="train/loss",
    )
    assert [p.step for p in points] == [1, 2, 3]
    assert points[0].metrics["lr"] == 0.01
    assert result.proof["grad_evals"] is None


def test_a_configuration_file_and_csv(tmp_path: Path) -> None:
    ((result, points, where),) = trained(
        tmp_path,
        "program: config_file.py",
        'command: ["${interpreter}", "${program}", "--config", "${args_json_file}"]',
        "seed_arg: seed",
        "budget_arg: iterations",
        "output_arg: output_dir",
        "step: iteration",
        "metrics: [{csv: '${trial_dir}/results.csv'}]",
        arms="{a: {parameters: {lr: 0.1}}}",
        metric="objective",
    )
    assert [p.step for p in points] == list(range(1, 17))
    assert result.proof["steps"] == result.proof["grad_evals"] == 16
    assert (where / "parameters.json").exists()


def test_nano(tmp_path: Path) -> None:
    ((result, points, where),) = trained(
        tmp_path,
        "program: nano/train.py",
        "seed_arg: --seed",
        "budget_arg: --max_iters",
        "output_arg: --out_dir",
        "resume_arg: --init_from=resume",
        "checkpoints: '${trial_dir}/ckpt.pt'",
        f"metrics: [{{pattern: '{NANO}'}}]",
        arms="{a: {parameters: {learning_rate: 0.01}}}",
    )
    assert [p.step for p in points] == [0, 8, 16]
    assert (result.proof["steps"], result.proof["grad_evals"]) == (16, 32)  # two pieces of every batch
    assert result.proof["batches"] >= 1
    assert (where / "ckpt.pt").exists()


@pytest.mark.long  # event files are read in test_program_sources.py; a file of its folder above
def test_tensorboard(tmp_path: Path) -> None:
    ((_, points, _),) = trained(
        tmp_path,
        "program: board.py",
        "output_arg: --logdir",
        "metrics: [{tensorboard: '${trial_dir}/events'}]",
        arms="{a: {parameters: {slope: 3.0}}}",
        metric="loss/train",
        budget=10,
    )
    tuned = [(p.step, p.metrics["loss/train"]) for p in points if "loss/train" in p.metrics]
    assert tuned == [(step, pytest.approx(3.0 / step)) for step in range(1, 11)]


def test_three_lines(tmp_path: Path) -> None:
    """The arm's optimizer; steps until the budget of gradient evaluations is spent, which they prove.

    A parameter that the script never looks at is said, or a misspelt one would stand in the table as if it had done
    something.
    """
    text = TEXT.format(
        task="  program: plain_trial.py",
        metric="val_loss",
        arms="{sgd: {optimizer: sgd, parameters: {momentun: 0.9}}, "
        "sam: {optimizer: sam, parameters: {sam_radius: 0.05}}}\nparameters: {lr: 0.1}",
        unit="grad_evals",
        budget=40,
    )
    folder = run(text, tmp_path)
    found = [
        (one.result, MetricLog(folder.trial(name) / "metrics.jsonl").points()) for name, one in records(folder).items()
    ]
    assert {result.state for result, _ in found} == {State.COMPLETE}, [result.error for result, _ in found]
    assert {result.metrics["cost/steps"] for result, _ in found} == {40.0, 20.0}
    for result, points in found:
        assert result.grad_evals == result.proof["grad_evals"] == 40
        assert (result.proof["seed"], result.proof["budget"]) == (True, "given")
        assert points[-1].step == 40  # in gradient evaluations
    digests = {(result.init_digest, result.data_digest) for result, _ in found}
    assert len(digests) == 1, "what an optimizer tries when it is built, and SAM's second look at a batch, do not count"
    assert all(digests.pop())
    said = noticed.unread(results.ended_trials(folder))
    assert said == ["the script never looked at momentun of sgd: what it is there changes nothing"]


@pytest.mark.long  # as it is and plain.py with three lines above, of which SAM has two gradients a step
def test_nano_with_three_lines(tmp_path: Path) -> None:
    """Two gradients a step, so twelve steps for twenty-four."""
    ((result, points, _),) = trained(
        tmp_path,
        "program: nano/train_trial.py",
        arms="{a: {parameters: {learning_rate: 0.01, gradient_accumulation_steps: 2}}}",
        unit="grad_evals",
        budget=24,
    )
    assert [p.step for p in points] == [8, 16, 24]
    assert (result.proof["steps"], result.proof["grad_evals"]) == (12, 24)


def test_epochs_with_three_lines(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: hydra_trial.py",
        arms="{a: {parameters: {optim.lr: 0.01, model.width: 8}}}",
        unit="epochs",
        budget=3,
        metric="train/loss",
    )
    assert [p.step for p in points] == [1, 2, 3]
    assert result.proof["steps"] == 12


def test_a_configuration_file_with_three_lines(tmp_path: Path) -> None:
    """Its own file stays; what the sweep gives wins over it. SAM takes half as many steps."""
    ((result, points, _),) = trained(
        tmp_path,
        "program: config_trial.py",
        'command: ["${interpreter}", "${program}", "--config", "config_trial.yaml"]',
        arms="{sam: {optimizer: sam, parameters: {sam_radius: 0.05}}}\nparameters: {lr: 0.1, size: 4}",
        unit="grad_evals",
        metric="objective",
    )
    assert result.metrics["cost/steps"] == 8
    assert result.proof["grad_evals"] == points[-1].step == 16
    assert (result.proof["seed"], result.proof["budget"]) == (True, "given")
    assert result.init_digest


def test_three_lines_alone(tmp_path: Path) -> None:
    """Without a sweep: plain defaults, metrics printed, nothing written, and no warning."""
    env = {k: v for k, v in environment().items() if not k.startswith("GEOSWEEP")}
    done = fresh(program=PROGRAMS / "plain_trial.py", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 9", "step 19", "step 29", "step 39"]
    assert "val_loss" in lines[-1]


HF = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
LIGHTNING = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")


@HF
@pytest.mark.long  # with three lines below; what a script as it is proves, above
def test_hugging_face(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: hf.py",
        "seed_arg: --seed",
        "budget_arg: --max_steps",
        "output_arg: --output_dir",
        "metrics: [{pattern: \"'eval_loss': '?(?P<eval_loss>[-\\\\d.e]+)\"}]",
        arms="{a: {parameters: {learning_rate: 0.001, use_cpu: true, report_to: none, save_strategy: 'no', "
        "eval_strategy: steps, eval_steps: 4, disable_tqdm: true}}}",
        budget=8,
        metric="eval_loss",
    )
    assert [p.step for p in points] == [4, 8, 8, 8]  # twice, then evaluate() as it logs it and as it is printed
    assert (result.proof["steps"], result.proof["grad_evals"]) == (8, 8)
    assert result.proof["batches"] >= 8
    assert result.init_digest


@HF
def test_hugging_face_with_three_lines(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: hf_trial.py",
        arms="{a: {parameters: {learning_rate: 0.001}}}",
        budget=8,
        metric="eval_loss",
    )
    assert [p.step for p in points] == [4, 8]
    assert (result.proof["steps"], result.proof["grad_evals"], result.proof["seed"]) == (8, 8, True)


@LIGHTNING
@pytest.mark.long  # Hugging Face's Trainer above; what a script as it is proves, and a CSV file, above that
def test_lightning(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: lit.py",
        "seed_arg: --seed",
        "budget_arg: --max_steps",
        "output_arg: --default_root_dir",
        "metrics: [{csv: '${trial_dir}/lightning_logs/version_*/metrics.csv'}]",
        arms="{a: {parameters: {lr: 0.05}}}",
    )
    assert len([p for p in points if "val_loss" in p.metrics]) == 4
    assert (result.proof["steps"], result.proof["grad_evals"]) == (16, 16)


@LIGHTNING
@pytest.mark.long  # three lines in a Trainer above
def test_lightning_with_three_lines(tmp_path: Path) -> None:
    ((result, points, _),) = trained(
        tmp_path,
        "program: lit_trial.py",
        arms="{a: {optimizer: sam, parameters: {lr: 0.05, sam_radius: 0.01}}}",
    )
    assert points[-1].step == 16
    assert (result.proof["steps"], result.proof["grad_evals"]) == (16, 32)  # two gradients a step, by closure
