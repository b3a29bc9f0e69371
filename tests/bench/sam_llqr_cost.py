"""What a step of SAM, LLQR and LLQR+SAM costs on a decoder of 10 M parameters and 512 tokens, in one run.

    python -m tests.bench.sam_llqr_cost [--iterations 6] [--small]

An iteration is everything from batch to new weights. All arms take turns, each on a model of its own; figures are
medians of process CPU seconds on one thread, which other processes do not disturb. Beside them: torch's SGD and AdamW
(fused) and pytorch_optimizer's SAM (extra `compare`). With a CUDA device everything runs a second time there, in
seconds of that device.

SAM's limit is two base iterations. LLQR at refresh interval k is compared with the cost model (T inner steps, batches
of the nominal size, 1.75 gradients a product, the charge of `llqr_settings.refresh_cost`):

    gradient + step of the base + U g + (1.75 (T + 1) + 2.75) gradients / k + (3 T + 3) U g / k

where U g costs 4 m n s FLOPs for each side s of a weight [m, n] with a dense factor, at this machine's rate of a matrix
product measured in the same run, and an inner step differentiates it once (three times its FLOPs).
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optim_core
from optim_core.llqr_settings import PRESETS, refresh_cost

VOCABULARY, TOKENS, SEQUENCES, HEADS = 512, 64, 8, 4
INTERVALS = (10, 100, 1000)
Step = Callable[[], Any]


class Block(nn.Module):
    """Attention and a feed-forward layer, without biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, (batch, length, width) = self.norm1(x), x.shape
        q, k, v = (f(h).view(batch, length, HEADS, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        found: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return found


class Decoder(nn.Module):
    """Tied embedding; logits [batch, tokens, vocabulary]."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, width), nn.Parameter(torch.zeros(TOKENS, width))
        self.blocks, self.norm = nn.Sequential(*(Block(width) for _ in range(depth))), nn.LayerNorm(width)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.norm(self.blocks(self.embed(tokens) + self.place)) @ self.embed.weight.T
        return found


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


class Bench:
    """The arms, their clocks and the batch."""

    def __init__(self, width: int, depth: int, device: torch.device) -> None:
        self._shape, self._device = (width, depth), device
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(VOCABULARY, (SEQUENCES, TOKENS + 1), generator=generator).to(device)
        self.batch = tokens[:, :-1], tokens[:, 1:]

    def model(self) -> Decoder:
        torch.manual_seed(0)
        return Decoder(*self._shape).to(self._device)

    def closure(self, model: nn.Module) -> Step:
        def evaluate() -> Tensor:
            model.zero_grad()
            loss = loss_of(model(self.batch[0]), self.batch[1])
            loss.backward()
            return loss

        return evaluate

    def torch_arm(self, kind: Any, **values: Any) -> tuple[Step, Step]:
        """(gradient, step of one of torch's own optimizers)."""
        model = self.model()
        return self.closure(model), kind(model.parameters(), **values).step

    def arm(self, name: str, **values: Any) -> Step:
        """An iteration of one of ours."""
        model = self.model()
        if optim_core.needs_batches(name):
            values.update(loss=loss_of, refresh_batches=lambda index: self.batch)
        optimizer = optim_core.build(name, model, lr=1e-3, **values)
        closure = self.closure(model)
        return lambda: optimizer.step(closure)

    def rival_sam(self) -> Step | None:
        """An iteration of pytorch_optimizer's SAM, or None where it is not installed."""
        try:
            from pytorch_optimizer import SAM
        except ImportError:
            return None
        model = self.model()
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=1e-3, momentum=0.9)
        closure = self.closure(model)

        def iteration() -> None:
            closure()
            optimizer.step(closure)

        return iteration

    def seconds(self, step: Step) -> float:
        """CPU seconds of one call; on a CUDA device its seconds."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            began = time.perf_counter()
            step()
            torch.cuda.synchronize()
            return time.perf_counter() - began
        began = time.process_time()
        step()
        return time.process_time() - began


def flops_of_action(model: nn.Module, structure: str) -> float:
    """FLOPs of U g over all weights."""
    if structure == "diagonal":
        return float(sum(p.numel() for p in model.parameters()))
    total, limit = 0.0, PRESETS["default"]["factor_limit"]
    for name, p in model.named_parameters():
        if p.ndim == 2:
            sides = [s for s in p.shape if s <= limit and not (name == "embed.weight" and s == VOCABULARY)]
            total += sum(4.0 * p.numel() * s for s in sides)
    return total


def flops_per_second(bench: Bench, device: torch.device) -> float:
    a, b = torch.randn(320, 320, device=device), torch.randn(320, 1280, device=device)
    times = [bench.seconds(lambda: [a @ b for _ in range(50)]) for _ in range(7)]
    return 50 * 2 * 320 * 320 * 1280 / statistics.median(times)


def measure(bench: Bench, arms: dict[str, Step], iterations: int) -> dict[str, float]:
    """Median seconds of each arm; the first round warms up and is left out."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(iterations + 1):
        for name, step in arms.items():
            found[name].append(bench.seconds(step))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--small", action="store_true", help="1 M parameters instead of 10 M")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(torch.device("cpu"), options.small, options.iterations)
    if torch.cuda.is_available():
        print()
        run(torch.device("cuda"), options.small, options.iterations)
    else:
        print("\nno CUDA device here: nothing was measured on one")


def run(device: torch.device, small: bool, iterations: int) -> None:
    """Measure all arms on one device and print the tables."""
    bench = Bench(*((128, 5) if small else (320, 8)), device)
    gradient, sgd = bench.torch_arm(torch.optim.SGD, lr=1e-3, momentum=0.9, fused=True)
    gradient_for_adamw, adamw = bench.torch_arm(torch.optim.AdamW, lr=1e-3, fused=True)
    gradient_for_adamw()
    never = {"refresh_interval": 10**9}
    often = {"refresh_interval": 1}
    arms: dict[str, Step] = {
        "gradient": gradient,
        "torch SGD fused, step": sgd,
        "torch AdamW fused, step": adamw,
        "sam": bench.arm("sam"),
        "sam over adamw": bench.arm("sam", base="adamw"),
        "asam": bench.arm("asam"),
        "friendly_sam": bench.arm("friendly_sam"),
    }
    rival = bench.rival_sam()
    if rival is not None:
        arms["pytorch_optimizer SAM"] = rival
    arms["llqr e_kronecker, bfloat16"] = bench.arm("llqr", structure="e_kronecker", action_dtype="bfloat16", **never)
    for structure in ("diagonal", "e_kronecker"):
        arms[f"llqr {structure}"] = bench.arm("llqr", structure=structure, **never)
        arms[f"llqr_sam {structure}"] = bench.arm("llqr_sam", structure=structure, **never)
    found = measure(bench, arms, iterations)
    refreshing = {
        s: measure(bench, {"step": bench.arm("llqr", structure=s, **often)}, 2)["step"]
        for s in ("diagonal", "e_kronecker")
    }
    rate = flops_per_second(bench, device)
    report(bench, device, found, refreshing, rate, iterations)
    if rival is None:
        print("\npytorch_optimizer is not installed: no rival SAM (pip install -c constraints.txt -e '.[compare]')")


def report(
    bench: Bench, device: torch.device, found: dict[str, float], refreshing: dict[str, float], rate: float, rounds: int
) -> None:
    """Print what was measured, beside what it should cost."""
    parameters = sum(p.numel() for p in bench.model().parameters())
    kind = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, 1 thread"
    what = "device" if device.type == "cuda" else "CPU"
    print(f"{datetime.date.today()}, torch {torch.__version__}, {kind}, load {os.getloadavg()[0]:.1f}")
    print(f"{parameters / 1e6:.2f} M parameters, {SEQUENCES * TOKENS} tokens, float32, medians of {rounds} iterations")
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s\n")
    g, base = found["gradient"], found["gradient"] + found["torch SGD fused, step"]
    print(f"{'':28}{what + ' s':>10}{'x gradient':>12}{'x base iteration':>18}")
    for name, seconds in found.items():
        over = f"{seconds / base:18.3f}" if "step" not in name and name != "gradient" else f"{'':18}"
        print(f"{name:28}{seconds:10.4f}{seconds / g:12.3f}{over}")
    print("\nbase iteration: gradient + fused SGD with momentum; limit of SAM: 2")
    print(f"sam / base iteration {found['sam'] / base:.3f} (to reach: 2.05)\n")
    values = PRESETS["default"]
    charge, inner = refresh_cost({**values, "metric": "ngd"}), values["inner_steps"]
    print(f"{'llqr at interval k':28}{'k':>6}{what + ' s':>10}{'model s':>10}{'ratio':>8}")
    for structure, whole in refreshing.items():
        cheap, action = found[f"llqr {structure}"], flops_of_action(bench.model(), structure) / rate
        refresh, step, charged = whole - cheap, base + action, charge * g
        print(f"{structure + ', between refreshes':34}{cheap:10.4f}{step:10.4f}{cheap / step:8.2f}")
        print(f"{structure + ', a refresh':34}{refresh:10.4f}{charged:10.4f}{refresh / charged:8.2f}  (of its charge)")
        for k in INTERVALS:
            model = base + action + (charge * g + (3 * inner + 3) * action) / k
            print(f"{structure:28}{k:6}{cheap + refresh / k:10.4f}{model:10.4f}{(cheap + refresh / k) / model:8.2f}")
    print("ratio to reach: 1.3")


if __name__ == "__main__":
    main()
