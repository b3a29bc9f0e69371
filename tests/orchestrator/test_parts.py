"""A flat configuration falls into its parts, and nothing of it is lost."""

from __future__ import annotations

from typing import Any

from orchestrator.definition.parts import Parts, in_section, section_of, split

WHOLE: dict[str, Any] = {
    "lr": 0.1,
    "betas": [0.9, 0.95],
    "sam_radius.schedule": "linear",
    "sam_radius.start": 0,
    "sam_radius.end": 0.1,
    "groups.embed.lr": 0.01,
    "groups.no_decay.weight_decay": 0,
    "task.width": 64,
    "training.warmup": 0.05,
}


def test_each_part_gets_its_own() -> None:
    parts = split(WHOLE)
    ramp = {"schedule": "linear", "start": 0, "end": 0.1}
    assert parts.optimizer == {"lr": 0.1, "betas": [0.9, 0.95]}
    assert parts.ramps == {"sam_radius": ramp}
    assert parts.groups == {"embed": {"lr": 0.01}, "no_decay": {"weight_decay": 0}}
    assert parts.task == {"width": 64}
    assert parts.training == {"warmup": 0.05}


def test_a_plain_configuration_is_the_optimizers() -> None:
    plain = {"lr": 0.1, "momentum": 0.9}
    assert split(plain).optimizer == plain
    assert split(plain) == Parts(optimizer=plain)


def test_sections() -> None:
    assert section_of("task.width") == ("task", "width")
    assert section_of("task") == ("", "task")
    assert section_of("sam_radius.end") == ("", "sam_radius.end")
    assert in_section("task", WHOLE) == ["task.width"]
