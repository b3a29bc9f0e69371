"""Shares of a GPU's memory, and sweeps of which an arm does not fit into its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from orchestrator.cli.plan import _memory
from orchestrator.protocol import probe
from orchestrator.scheduling import abort
from orchestrator.trial import gpu_memory
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_cli import write
from tests.orchestrator.test_refusal import hear, on_fire, sweep

__all__ = ["sweep"]
GIB = 2**30
FULL = on_fire("torch.OutOfMemoryError", says="CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("total", [8 * GIB, 80 * GIB])
@pytest.mark.parametrize("trials", [1, 2, 4, 16])
def test_shares_and_what_cuda_takes_fit_into_the_device(total: int, trials: int) -> None:
    handed_out = gpu_memory.fraction(1 / trials, total) * total
    if trials == 1:
        assert handed_out == total
    elif total / trials > 2 * gpu_memory.CONTEXT:
        assert trials * (handed_out + gpu_memory.CONTEXT) <= total * (1 + 1e-9)
    else:
        assert handed_out == pytest.approx(total / trials / 2)


@pytest.mark.parametrize("held", [0.1 * GIB, GIB, 7 * GIB, 39 * GIB, 79 * GIB])
def test_trials_with_the_share_that_they_need_fit_side_by_side(held: float) -> None:
    total = 80 * GIB
    share = gpu_memory.share_needed(held, total)
    assert share <= 1
    assert (1 / share).is_integer()
    if share < 1:
        assert gpu_memory.fraction(share, total) * total >= held


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_claimed_or_told() -> None:
    gpu_memory.claim(0.5)
    assert gpu_memory.peak(0.5) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_share_holds_and_its_peak_is_told() -> None:
    gpu_memory.claim(0.1)
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(0.2 * total), dtype=torch.uint8, device="cuda")
        kept = torch.empty(GIB, dtype=torch.uint8, device="cuda")
        assert gpu_memory.peak(0.1)["memory/gpu_gib"] == pytest.approx(len(kept) / GIB, rel=0.05)
    finally:
        gpu_memory.claim(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "given_up"),
    [
        ([("sgd", "FAILED", FULL)] * 2, True),
        ([("sgd", "FAILED", FULL)], False),
        ([("sgd", "FAILED", FULL), ("adamw", "FAILED", FULL)], False),
        ([("adamw", "COMPLETE", ""), ("sgd", "FAILED", FULL), ("sgd", "FAILED", FULL)], True),
        ([("sgd", "COMPLETE", ""), ("sgd", "FAILED", FULL), ("sgd", "FAILED", FULL)], False),  # some fit: a large one
        ([("sgd", "DIVERGED", ""), ("sgd", "FAILED", FULL), ("sgd", "FAILED", FULL)], False),
        ([("sgd", "FAILED", on_fire())] * 2, False),
    ],
)
def test_given_up_when_no_trial_of_an_arm_fits(sweep: Any, ends: Any, given_up: bool) -> None:
    definition, folder = sweep
    refusal = hear(abort.Alike(definition, folder), folder, ends)
    assert bool(refusal) == given_up
    if given_up:
        assert "2 trials of arm sgd ran out of memory on its GPU" in refusal
        assert "accumulate: auto" in refusal


@pytest.mark.slow
def test_a_sweep_that_does_not_fit_ends_after_two_trials_with_the_way_out(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", method="random", trials=20, max_failed=50)
    given = {**yaml.safe_load(sweep_text()), **yaml.safe_load(Path(file).read_text())}
    given["task"] = {"name": "tests.tasks:Large", "most": 4}
    given["resources"] = {"gpu": 0.25}
    Path(file).write_text(yaml.safe_dump(given))
    found = call("run", file, "--executor", "debug", "--no-tracking")
    assert found.code == 8
    assert "2 trials of arm" in found.err
    assert "in its share, 0.25, of a GPU" in found.err
    assert "resources: {gpu: 0.5}" in found.err
    folder = next((tmp_path / "runs").glob("fit-*"))
    assert len(list((folder / "trials").iterdir())) <= 3
    given |= {"training": {"accumulate": "auto"}, "name": "pieces"}
    given["budget"]["trials_per_arm"] = 2
    Path(file).write_text(yaml.safe_dump(given))
    found = call("run", file, "--executor", "debug", "--no-tracking")
    assert found.code == 0, found.err


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_what_is_said_to_fit_has_room_in_its_share(share: float) -> None:
    total = 80 * GIB
    room = gpu_memory.fraction(share, total) * total
    for reserved, fits in ((int(room), True), (int(room) + GIB, False)):
        needed, found = probe.judged(reserved, total, share)
        assert found == fits
        assert needed is not None
        assert found or needed > share or needed == 1


@pytest.mark.parametrize("pack", [1, 8])
@pytest.mark.parametrize("trials", [1, 2, 3, 6, 7, 12, 64])
def test_plan_names_a_share_of_which_as_many_fit_side_by_side(trials: int, pack: int) -> None:
    total = 80 * GIB
    reserved = int((total / trials - gpu_memory.CONTEXT) / 1.11)
    share, fits = probe.judged(reserved, total, 1 / (2 * trials))
    found = probe.Taken(
        device="GPU", gib=reserved / GIB, total_gib=total / GIB, share=share, fits=fits or trials == 1, pack=pack
    )
    said = re.fullmatch(r"(.*) takes \S+ GiB of GPU \(80 GiB\); resources: {gpu: (\S+)} (.*)", _memory(found))
    assert said is not None
    assert said[1] == ("a trial" if pack == 1 else "a pack of 8 trials")
    assert int(1 / float(said[2])) == trials
    assert gpu_memory.fraction(float(said[2]), total) * total >= reserved
    if trials > 1:
        assert said[3].startswith("is needed, more than its share; or ")
        assert ("make the pack smaller" in said[3]) == (pack > 1)


@pytest.mark.slow
def test_plan_takes_a_few_steps_and_says_what_memory_they_took(call: Any, tmp_path: Path) -> None:
    """A model of 16 MB of weights: SGD holds weights, gradients and momenta, and AdamW one more."""
    file = write(tmp_path / "wide.yaml")
    given = yaml.safe_load(Path(file).read_text())
    given["task"] = {"name": "tests.tasks:Fit", "width": 2048}
    Path(file).write_text(yaml.safe_dump(given))
    found = call("plan", file, "--probe", "--json")
    assert found.code == 0, found.err
    memory = found.document["memory"]
    assert {arm: (one["device"], one["fits"], one["share"]) for arm, one in memory.items()} == {
        "sgd": ("CPU", True, None),
        "adamw": ("CPU", True, None),
    }
    for arm, copies in (("sgd", 3), ("adamw", 4)):
        assert 0.7 * copies * 2**24 <= memory[arm]["gib"] * GIB <= 2**28
    file = write(tmp_path / "fit.yaml")
    assert "memory" not in call("plan", file, "--json").document
    assert "GiB of memory on top of this command's own" in call("plan", file, "--probe").out


@pytest.mark.slow
def test_plan_says_what_does_not_fit_and_how_many_pieces_do(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "large.yaml")
    given = yaml.safe_load(Path(file).read_text())
    given["task"] = {"name": "tests.tasks:Large", "most": 5}
    Path(file).write_text(yaml.safe_dump(given))
    found = call("plan", file, "--probe")
    assert found.code == 6
    assert "sgd: does not fit into CPU: CUDA out of memory. Tried to allocate 2.00 GiB.; give it smaller" in found.out
    Path(file).write_text(yaml.safe_dump({**given, "training": {"accumulate": "auto"}}))
    found = call("plan", file, "--probe", "--json")
    assert found.code == 0, found.err
    assert {one["pieces"] for one in found.document["memory"].values()} == {4}
    given["task"] = {"name": "tests.orchestrator.test_packs:Crowded"}
    Path(file).write_text(yaml.safe_dump({**given, "resources": {"pack": 2}}))
    assert "a pack of 2 trials takes" in call("plan", file, "--probe").out
    Path(file).write_text(yaml.safe_dump({**given, "resources": {"pack": 4}}))
    found = call("plan", file, "--probe")
    assert found.code == 6
    assert "does not fit into CPU: CUDA out of memory. Tried to allocate 2.00 GiB.; make the pack smaller" in found.out
