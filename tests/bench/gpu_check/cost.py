"""What steps cost on the device, in memory, time and waits, beside what they have to."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import optim_core
from optim_core.llqr_settings import PRESETS, refresh_cost
from tests.bench.gpu_check.setting import Row, Setting
from tests.bench.rotation_cost import work
from tests.bench.sam_llqr_cost import Bench, Decoder, Step, flops_of_action, loss_of
from tests.contracts.optimizer_contract import SETTINGS
from trainables import Task
from trainables.gradient import Gradients
from trainables.recipe import PRECISIONS, Recipe
from trainables.workers import Workers

SLOW_S = 5.0
"""A first step above this is told and not repeated: there is no time for it."""
INTERVAL = 100
NEVER = 10**9
TWO_PASS = ("sam", "asam", "friendly_sam", "gsam", "fisher_sam")
STATE = {
    "gd": (0, 0, 0), "sgd": (1, 0, 0), "adamw": (2, 0, 0), "schedule_free": (1, 0, 0), "nesterov": (1, 0, 0),
    "polyak": (1, 0, 0), "chebyshev": (1, 0, 0), "sam": (1, 0, 0), "asam": (1, 0, 0), "gsam": (1, 0, 0),
    "fisher_sam": (1, 0, 0), "friendly_sam": (2, 0, 0), "looksam": (2, 0, 0), "rotated(sgd)": (1, 0, 0),
    "rotated_adamw": (2, 0, 0), "muon": (1, 1, 0), "soap": (2, 0, 2), "psgd_kron": (1, 0, 1),
}  # fmt: skip
"""Numbers that an optimizer has to keep: of every weight, of every weight outside hidden matrices on top of it, and of
every square of a side of a matrix. So soap keeps two moments, and of each side a Gram matrix and its basis."""


class Iterations(Bench):
    """The bench of `sam_llqr_cost`, its model's passes under bfloat16 autocast or not."""

    def __init__(self, setting: Setting, low: bool = False) -> None:
        super().__init__(setting.sizes.width, setting.sizes.depth, torch.device(setting.device))
        self._low = low

    def closure(self, model: nn.Module) -> Step:
        """One gradient."""

        def evaluate() -> Tensor:
            model.zero_grad()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low):
                outputs = model(self.batch[0])
            loss = loss_of(outputs.float(), self.batch[1])
            loss.backward()
            return loss

        return evaluate

    def optimizer(self, name: str, model: nn.Module, **values: Any) -> Any:
        """One of ours, on this model."""
        if optim_core.needs_batches(name):
            values.update(loss=loss_of, refresh_batches=lambda index: self.batch)
        if "lr" in optim_core.hyperparameters(name):
            values.setdefault("lr", 1e-3)
        else:
            values = {**SETTINGS.get(name, {}), **values}
        return optim_core.build(name, model, **values)

    def ours(self, name: str, **values: Any) -> Step:
        """An iteration of one of ours."""
        model = self.model()
        optimizer = self.optimizer(name, model, **values)
        closure = self.closure(model)
        return lambda: optimizer.step(closure)

    def theirs(self, package: str, *names: str, **values: Any) -> Step:
        """An iteration of somebody else's, by the first of its names that there is. Raises ImportError."""
        module = __import__(package)
        kind = next((getattr(module, name) for name in names if hasattr(module, name)), None)
        if kind is None:
            raise ImportError(f"{package} has none of {', '.join(names)}")
        model = self.model()
        optimizer, closure = kind(model.parameters(), lr=1e-3, **values), self.closure(model)

        def iteration() -> None:
            closure()
            optimizer.step()

        return iteration

    def rate(self) -> float:
        """FLOPs a second of a product of float32 matrices as wide as the model's, or 512."""
        n = max(512, self._shape[0])
        a, b = (torch.randn(n, n, device=self._device) for _ in range(2))
        return 10 * 2 * n**3 / min(self.seconds(lambda: [a @ b for _ in range(10)]) for _ in range(5))


def _of_one_model(setting: Setting) -> list[str]:
    return [name for name in setting.optimizers() if not optim_core.lookup(name).PLAYS_GAMES]


def memory(setting: Setting) -> Iterator[Row]:
    """Numbers of four bytes for each weight: held between steps, beside what has to be; on a GPU, the peak of a step.

    The peak is that of steps with refreshes, above the weights, less that of a gradient alone.
    """
    bench = Iterations(setting)

    def peak(run: Callable[[], Any], base: int) -> float:
        run()
        if not setting.cuda:
            return float("nan")
        torch.cuda.reset_peak_memory_stats()
        run()
        return float(torch.cuda.max_memory_allocated() - base)

    def row(name: str) -> Row:
        model = bench.model()
        weights = sum(p.numel() for p in model.parameters())
        base = torch.cuda.memory_allocated() if setting.cuda else 0
        alone = peak(bench.closure(model), base)
        model.zero_grad()
        values = {"refresh_interval": 1} if "refresh_interval" in optim_core.hyperparameters(name) else {}
        optimizer = bench.optimizer(name, model, **values)
        closure = bench.closure(model)
        above = peak(lambda: optimizer.step(closure), base) - alone
        held = _bytes(optimizer.state_dict()) / 4 / weights
        found: Row = {"held": held, "formula": _state(name, model), "peak": above / 4 / weights}
        if name in STATE and held > found["formula"] + 0.1:
            found["failed"] = f"holds {held:.2f} numbers for each weight, {found['formula']:.2f} suffice"
        return found

    return setting.each(_of_one_model(setting), row)


def _state(name: str, model: Decoder) -> float | str:
    """Numbers for each weight of the model; empty where no formula is known."""
    if name not in STATE:
        return ""
    each, outside, squares = STATE[name]
    params = list(model.parameters())
    rest = model.embed.weight.numel() + sum(p.numel() for p in params if p.ndim != 2)
    sides = sum(n * n for p in params if p.ndim == 2 for n in p.shape)
    return each + (outside * rest + squares * sides) / sum(p.numel() for p in params)


def _bytes(value: Any) -> int:
    """Of all tensors in it."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, inner))


HEAVYBALL = "GPU_CHECK_HEAVYBALL"
"""Variable that asks for heavyball on a GPU, which compiles for 41 s (AdamW) and 323 s (SOAP) there on an H100."""
WARM, ROUNDS = 3, 7
"""Iterations of each arm that are left out, and the least number that count, whatever the box of time says (a GPU)."""
WORDS = ("float32", "bfloat16")
Arm = tuple[str, str]
"""(precision, name)."""


def steps(setting: Setting) -> Iterator[Row]:
    """Milliseconds of an iteration, all in turns in each round, beside its bound; gradients in float32 and bfloat16.

    Medians of at least seven rounds, after three that warm up; `spread` is half the distance of the quartiles over the
    median. Bounds: two gradients for SAM's kin; a gradient, torch's fused AdamW and the products at the device's
    float32 rate for rotated AdamW and SOAP; a gradient, the action and a hundredth of a refresh's charge for LLQR.
    """
    benches = {word: Iterations(setting, low=word == "bfloat16") for word in WORDS}
    makers = {word: _makers(setting, bench) for word, bench in benches.items()}
    names = [(word, name) for name in makers[WORDS[0]] for word in WORDS]  # in turns: time that is short is so for both
    yield from _measured(setting, benches, {(word, name): makers[word][name] for word, name in names})


def rivals(setting: Setting) -> Iterator[Row]:
    """The same of rivals that compile for minutes before their first step, and of what they are compared with.

    On a GPU only where GPU_CHECK_HEAVYBALL is set.
    """
    if setting.cuda and HEAVYBALL not in os.environ:
        yield {"what": "heavyball", "note": f"{HEAVYBALL} is not set"}
        return
    bench = Iterations(setting)
    ours = _makers(setting, bench)
    kept = ("gradient", "torch SGD fused, its step", "torch AdamW fused, its step", "adamw", "soap",
            "rotated_adamw soap_eig", "pytorch_optimizer SOAP")  # fmt: skip
    makers = {("float32", name): ours[name] for name in kept if name in ours}
    makers[("float32", "heavyball AdamW")] = partial(bench.theirs, "heavyball", "AdamW", "ForeachAdamW")
    makers[("float32", "heavyball SOAP")] = partial(bench.theirs, "heavyball", "SOAP", "ForeachSOAP")
    yield from _measured(setting, {"float32": bench}, makers, slow=float("inf"))


def _makers(setting: Setting, bench: Iterations) -> dict[str, Callable[[], Step]]:
    """What makes each arm of one precision."""
    gradient, sgd = bench.torch_arm(torch.optim.SGD, lr=1e-3, momentum=0.9, fused=True)
    prepared, adamw = bench.torch_arm(torch.optim.AdamW, lr=1e-3, fused=True)
    prepared()
    rare = {"refresh_interval": NEVER}
    return {
        "gradient": lambda: gradient,
        "torch SGD fused, its step": lambda: sgd,
        "torch AdamW fused, its step": lambda: adamw,
        **{name: partial(bench.ours, name) for name in _of_one_model(setting) if not optim_core.needs_batches(name)},
        "rotated_adamw svd": partial(bench.ours, "rotated_adamw", rotation="svd", rotation_refresh=NEVER),
        "rotated_adamw soap_eig": partial(bench.ours, "rotated_adamw", rotation="soap_eig", rotation_refresh=NEVER),
        "llqr diagonal, no refresh": partial(bench.ours, "llqr", structure="diagonal", **rare),
        "llqr diagonal, a refresh": partial(bench.ours, "llqr", structure="diagonal", refresh_interval=1),
        "llqr_sam diagonal, no refresh": partial(bench.ours, "llqr_sam", structure="diagonal", **rare),
        "pytorch_optimizer SAM": lambda: _present(bench.rival_sam()),
        "pytorch_optimizer SOAP": partial(bench.theirs, "pytorch_optimizer", "SOAP"),
    }


def _measured(
    setting: Setting,
    benches: dict[str, Iterations],
    makers: dict[Arm, Callable[[], Step]],
    slow: float = SLOW_S,
) -> Iterator[Row]:
    """Begin every arm, warm all up, then let them take turns; a row for each."""
    arms: dict[Arm, Step] = {}
    pending = dict(makers)

    def begin(name: str) -> Row | list[Row]:
        arm = next(key for key in pending if key[1] == name)
        step = pending.pop(arm)()
        if (first := benches[arm[0]].seconds(step)) > slow:
            return {"precision": arm[0], "note": f"its first step took {first:.1f} s"}
        arms[arm] = step
        return []

    yield from setting.each([name for _, name in makers], begin)
    times: dict[Arm, list[float]] = {arm: [] for arm in arms}
    warm, least = (WARM, ROUNDS) if setting.cuda else (1, 2)
    for number in range(warm + max(least, setting.sizes.iterations)):
        if number >= warm + least and setting.left <= 0:
            break
        for arm, step in arms.items():
            times[arm].append(benches[arm[0]].seconds(step))
    for word, bench in benches.items():
        yield from _rows(bench, word, {name: taken[warm:] for (w, name), taken in times.items() if w == word})


def _rows(bench: Iterations, word: str, times: dict[str, list[float]]) -> Iterator[Row]:
    found = {name: statistics.median(taken) for name, taken in times.items()}
    if not {"gradient", "torch SGD fused, its step", "torch AdamW fused, its step"} <= set(found):
        return
    base = found["gradient"] + found["torch SGD fused, its step"]
    bounds = _bounds(bench, found)
    for name, seconds in found.items():
        low, _, high = statistics.quantiles(times[name], n=4)
        row: Row = {"what": name, "precision": word, "ms": 1e3 * seconds, "x gradient + SGD": seconds / base}
        if name in bounds:
            row |= {"bound ms": 1e3 * bounds[name], "x bound": seconds / bounds[name]}
        yield row | {"spread": (high - low) / 2 / seconds, "rounds": len(times[name])}
    whole, cheap = found.get("llqr diagonal, a refresh"), found.get("llqr diagonal, no refresh")
    if whole is not None and cheap is not None:
        seconds = cheap + (whole - cheap) / INTERVAL
        bound = bounds["llqr diagonal, amortized"]
        yield {"what": f"llqr diagonal at interval {INTERVAL}", "precision": word, "ms": 1e3 * seconds,
               "x gradient + SGD": seconds / base, "bound ms": 1e3 * bound, "x bound": seconds / bound}  # fmt: skip


def _present(step: Step | None) -> Step:
    if step is None:
        raise ImportError
    return step


def _bounds(bench: Iterations, found: dict[str, float]) -> dict[str, float]:
    gradient = found["gradient"]
    base = gradient + found["torch SGD fused, its step"]
    adamw = gradient + found["torch AdamW fused, its step"]
    rate, model = bench.rate(), bench.model()
    shapes = [(p.shape[0], p.shape[1]) for p in model.parameters() if p.ndim == 2]
    rotated = {kind: adamw + work(kind, shapes, NEVER).flops / rate for kind in ("svd", "soap_eig")}
    values, action = PRESETS["default"], flops_of_action(model, "diagonal") / rate
    charge, inner = refresh_cost({**values, "metric": "ngd"}), values["inner_steps"]
    return {
        **dict.fromkeys((*TWO_PASS, "pytorch_optimizer SAM"), base + gradient),
        "adamw": adamw,
        "sgd": base,
        "rotated_adamw svd": rotated["svd"],
        "rotated_adamw soap_eig": rotated["soap_eig"],
        "soap": rotated["soap_eig"],
        "llqr diagonal, no refresh": base + action,
        "llqr_sam diagonal, no refresh": base + gradient + action,
        "llqr diagonal, amortized": base + action + (charge * gradient + (3 * inner + 3) * action) / INTERVAL,
    }


class Language(Task):
    """The bench's model and batch as a task."""

    METRICS = {}  # noqa: RUF012

    def __init__(self, bench: Iterations) -> None:
        self._bench = bench

    def model(self, seed: int) -> Decoder:
        """The decoder."""
        return self._bench.model()

    def batch(self, seed: int, index: int) -> Any:
        """Always the same one."""
        return self._bench.batch

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Cross-entropy."""
        return loss_of(outputs, targets)


@contextmanager
def _compiler(setting: Setting) -> Iterator[None]:
    """On the CPU without the half minute that torch's own backend takes for C++."""
    original = torch.compile
    torch.compiler.reset()
    if not setting.cuda:
        torch.compile = partial(original, backend="aot_eager")  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = original  # type: ignore[assignment]


def precision(setting: Setting) -> Iterator[Row]:
    """An iteration of AdamW in each precision, compiled and not; the loss after the same steps beside float32's."""
    bench = Iterations(setting)
    task, count = Language(bench), 3 + setting.sizes.iterations
    plain: dict[str, float] = {}

    def row(name: str) -> Row:
        word, _, how = name.partition(", ")
        model = task.model(0)
        recipe = Recipe(precision=word, compile={"": False}.get(how, how.removeprefix("compiled ")))
        gradients, optimizer = Gradients(task, model, recipe, Workers()), bench.optimizer("adamw", model)
        times, losses = [], []
        for index in range(count):
            began = time.perf_counter()
            losses.append(optimizer.step(gradients.closure(bench.batch, optimizer, index)))
            setting.wait()
            times.append(time.perf_counter() - began)
            if index > 2 and setting.left <= 0:
                break
        ms, loss = 1e3 * statistics.median(times[3:]), float(losses[3].detach())
        plain.setdefault("ms", ms)
        plain.setdefault("loss", loss)
        found: Row = {"ms": ms, "x fp32": ms / plain["ms"], "first step s": times[0],
                      "loss, from fp32": loss - plain["loss"]}  # fmt: skip
        if not abs(loss - plain["loss"]) < 0.02 * plain["loss"]:
            found["failed"] = f"the loss is {loss:.4g} after three steps, in float32 {plain['loss']:.4g}"
        return found

    names = [*PRECISIONS, *(f"{word}, compiled {how}" for how in ("model", "step") for word in ("fp32", "bf16"))]
    with _compiler(setting), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # float16 begins with steps not taken
        yield from setting.each(names, row)


def syncs(setting: Setting) -> Iterator[Row]:
    """How often the host waits for the device in a step of each optimizer, its own update alone (a third step), and at
    which lines. Those that select (see `optim_core.judging`) must not.
    """
    bench = Iterations(setting)

    def row(name: str) -> Row:
        model = bench.model()
        values = {"refresh_interval": NEVER} if "refresh_interval" in optim_core.hyperparameters(name) else {}
        optimizer, closure = bench.optimizer(name, model, **values), bench.closure(model)
        for _ in range(2):
            optimizer.step(closure)
        if not setting.cuda:
            optimizer.step(closure)
            return {"waits": "no device"}
        setting.wait()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                optimizer.step(closure)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
        found: Row = {"waits": len(waits), "at": ", ".join(dict.fromkeys(waits))}
        if waits and type(optimizer).SELECTS:
            found["failed"] = f"waits {len(waits)} times for a device that decides by itself, at {found['at']}"
        return found

    return setting.each(_of_one_model(setting), row)
