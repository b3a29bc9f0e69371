"""Small trials packed into one process, against processes and streams that share the device."""

from __future__ import annotations

import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from threading import Barrier
from typing import Any

import torch

import trainables
from tests.bench.gpu_check.setting import Row, Setting
from tests.bench.pack import apart, together
from trainables import Task
from trainables.loop import Training

MODELS = ("mlp", "resnet8")
OPTIMIZER, LR = "sgd", 0.05
STEPS = 200
"""Steps of a trial, for trials an hour."""
ENDLESS, WARM = 10**9, 3
PATIENCE_S = 60.0


def packed(setting: Setting) -> Iterator[Row]:
    """Digits trials (sgd, batch 64) an hour: one process, several, streams of one process, packs; steps alone.

    Processes and streams run our own loop. `seeds` packs have a seed and batches for each trial, `one seed` packs share
    them, as trials that tune an arm do. `x one` is against one process, `x best` against the best way without packing.
    """
    plain: dict[str, list[float]] = {model: [] for model in MODELS}

    def row(name: str) -> Row:
        model, _, way = name.partition(", ")
        count, kind, rest = int(way.split()[0]), way.partition(" ")[2], Row()
        if kind.startswith("process"):
            steps = fleet.rate(count, model)
        elif kind == "streams":
            steps = _streams(setting, model, count)
        else:
            rest = _packs(model, count, setting, shared=kind.endswith("one seed"))
            steps = rest["steps a second"]
        found: Row = {"steps a second": steps, "trials an hour": 3600 * steps / STEPS, **rest}
        if not kind.startswith("packed"):
            plain[model].append(steps)
        elif plain[model]:
            found |= {"x one": steps / plain[model][0], "x best": steps / max(plain[model])}
        return found

    several = setting.sizes.processes[1:]
    ways = ["1 process", *(f"{n} processes" for n in several), *(f"{n} streams" for n in several)]
    ways += [f"{n} packed, {how}" for how in ("seeds", "one seed") for n in setting.sizes.packs]
    fleet = Fleet(max(setting.sizes.processes), setting.sizes.packed_s)
    try:
        yield from setting.each([f"{model}, {way}" for model in MODELS for way in ways], row)
    finally:
        fleet.end()


class Fleet:
    """Processes that are started once and step when they are told to; the device stays visible to each as it is."""

    def __init__(self, size: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, seconds), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def rate(self, count: int, model: str) -> float:
        """Steps a second of `count` of them at once, together."""
        chosen = self._pipes[:count]
        try:
            for words in (f"build {model}", "go"):  # all are built and warm before one is timed
                for pipe in chosen:
                    pipe.send(words)
                answers = [self._answer(pipe) for pipe in chosen]
        except BaseException:
            self.end()  # a late answer would be taken for the next one's
            raise
        return math.fsum(answers)

    @staticmethod
    def _answer(pipe: Any) -> float:
        if not pipe.poll(PATIENCE_S):
            raise TimeoutError(f"a process said nothing for {PATIENCE_S:g} s")
        return float(pipe.recv())

    def end(self) -> None:
        """All of them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(pipe: Any, rank: int, seconds: float) -> None:
    torch.set_num_threads(1)
    training: Training | None = None
    while True:
        try:
            words = pipe.recv()
        except EOFError:
            return
        if words == "go":
            assert training
            pipe.send(_rate(training, seconds))
        else:
            training = _apart(words.split()[1], rank)
            pipe.send(0.0)


def _digits(model: str) -> Task:
    return trainables.build("digits", model=model, noise=0.4)


def _apart(model: str, seed: int) -> Training:
    """A trial in our loop, warm."""
    found = apart(_digits(model), OPTIMIZER, LR, seed, ENDLESS)
    found.advance(lambda: found.step >= WARM)
    return found


def _rate(training: Training, seconds: float) -> float:
    """Steps a second; every step reads its loss back, so that the clock needs no other wait."""
    began, first = time.perf_counter(), training.step
    training.advance(lambda: time.perf_counter() - began >= seconds)
    return (training.step - first) / (time.perf_counter() - began)


def _packs(model: str, count: int, setting: Setting, *, shared: bool) -> Row:
    """Steps a second of all trials of a pack, and how often the host waits for the device in a step."""
    seeds = [0] * count if shared else range(count)
    pack = together(partial(_digits, model), OPTIMIZER, [LR] * count, seeds, ENDLESS)

    def steps(enough: Callable[[int], bool]) -> int:
        taken = iter(range(ENDLESS))
        asked = 0

        def pause() -> bool:
            nonlocal asked
            asked = next(taken)
            return enough(asked)

        pack.advance(pause)
        return asked

    steps(lambda n: n >= WARM)
    waits: Row = {}
    if setting.cuda:
        setting.wait()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                steps(lambda n: n >= WARM)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits["waits a step"] = sum("synchroniz" in str(w.message) for w in caught) / WARM
    began = time.perf_counter()
    taken = steps(lambda n: time.perf_counter() - began >= setting.sizes.packed_s)
    return {"steps a second": count * taken / (time.perf_counter() - began), **waits}


def _streams(setting: Setting, model: str, count: int) -> float:
    """Steps a second of trials in threads of one process, each on a stream of its own."""
    seconds = setting.sizes.packed_s

    def run(seed: int) -> float:
        with torch.cuda.stream(torch.cuda.Stream()) if setting.cuda else nullcontext():  # type: ignore[no-untyped-call]
            training = _apart(model, seed)
            ready.wait(PATIENCE_S)
            return _rate(training, seconds)

    ready = Barrier(count)
    with ThreadPoolExecutor(count) as threads:
        return math.fsum(threads.map(run, range(count)))
