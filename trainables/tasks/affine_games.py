"""Two-player games with an affine field v(w) = J (w - w*), with exactly known spectrum and best rates.

Player 1 owns x [m], player 2 owns y [n]; with symmetric own Hessians P, Q and couplings A [m, n], B [n, m]

    l_1 = x'Px/2 + x'Ay + b'x,   l_2 = y'Qy/2 + y'Bx + c'y,   J = [[P, A], [B, Q]]

`bilinear`: P = Q = 0, B = -A'; `quadratic_game`: B = -A'; `shape_game`: J normal with eigenvalues on a spectral shape
of Azizian et al. 2020 (arXiv 2001.00602). The seed rotates the players' bases and draws solution and start; the
spectrum is fixed by the task. Float64; there is no data, so batches are empty and every evaluation sees the whole game.

    residual/log10   log10 |v| / |v at the start|, at most 10
    rate/reference   what theory promises for the best method on this spectrum, as an error factor per
                     gradient evaluation (`optim_core.games.rates` derives it, tests compare)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

GAME_SEED = 5_000_011
LARGEST_RESIDUAL = 10.0
SHAPES = ("interval", "disc", "ellipse", "vertical", "imaginary", "cross", "half_disc")
LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda u: u,
    "log": lambda u: u,
    "edges": lambda u: (1 - torch.cos(math.pi * u)) / 2,
}


class Player(nn.Module):
    """One player: its variable `at` [m], own Hessian [m, m], coupling [m, n] and offset [m]."""

    own: Tensor
    coupling: Tensor
    offset: Tensor
    first_norm: Tensor

    def __init__(self, at: Tensor, own: Tensor, coupling: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at)
        self.register_buffer("own", own)
        self.register_buffer("coupling", coupling)
        self.register_buffer("offset", offset)
        self.register_buffer("first_norm", torch.zeros((), dtype=at.dtype))

    def field(self, other: Tensor) -> Tensor:
        """The player's own part of v, [m]."""
        return self.own @ self.at + self.coupling @ other + self.offset

    def forward(self, other: Tensor) -> Tensor:
        """The player's own loss against `other` [n]."""
        return self.at @ (0.5 * (self.own @ self.at) + self.coupling @ other + self.offset)


class AffineGame(Task):
    """Common part of the three games; a subclass draws the blocks and knows the reference rate."""

    GAME: ClassVar[bool] = True
    SCHEDULE: ClassVar[str] = "constant"
    FREE = frozenset()
    METRICS: ClassVar = {
        "residual/log10": Metric(goal="minimize", worst=LARGEST_RESIDUAL),
        "rate/reference": Metric(goal="minimize", worst=1.0),
    }
    TABLE: ClassVar = ("geometry/rate_measured", "geometry/rate_theory", "geometry/rate_gap", "rate/reference")
    divergence_loss = 1e20

    def blocks(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """P [m, m], A [m, n], B [n, m], Q [n, n]."""
        raise RuntimeError(f"{type(self).__name__} has no blocks()")

    def reference(self, J: Tensor) -> float:
        """Rate of the best method for the spectrum, per gradient evaluation."""
        raise RuntimeError(f"{type(self).__name__} has no reference()")

    def model(self, seed: int) -> Model:
        """The players at their start: solution and start are standard normal in every coordinate."""
        generator = torch.Generator().manual_seed(GAME_SEED + seed)
        P, A, B, Q = self.blocks(generator)
        m, n = A.shape
        x, y, solved_x, solved_y = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (m, n, m, n))
        players = [
            Player(x, P, A, -(P @ solved_x + A @ solved_y)),
            Player(y, Q, B, -(Q @ solved_y + B @ solved_x)),
        ]
        for player in players:
            player.first_norm.fill_(_norm(players))
        return list(players)

    def batch(self, seed: int, index: int) -> Batch:
        """Empty: there is no data."""
        return ()

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Digest of the game drawn by this seed, with the index."""
        digest = hashlib.sha256(str(index).encode())
        for block in self.blocks(torch.Generator().manual_seed(GAME_SEED + seed)):
            digest.update(block.numpy().tobytes())
        return digest.digest()

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """Both players' losses."""
        first, second = _players(model)
        return lambda: [first(second.at), second(first.at)]

    def jacobian(self, model: Model) -> Tensor:
        """J of the game's field, [m + n, m + n]."""
        first, second = _players(model)
        return torch.cat([torch.cat([first.own, first.coupling], 1), torch.cat([second.coupling, second.own], 1)])

    def evaluate(self, model: Model) -> dict[str, float]:
        """The residual, and the predicted rate."""
        players = _players(model)
        with torch.no_grad():
            norm, start = _norm(players), float(players[0].first_norm)
            J = self.jacobian(model)
        ratio = norm / start if math.isfinite(norm) else math.inf
        residual = min(math.log10(max(ratio, 1e-300)), LARGEST_RESIDUAL)
        return {"residual/log10": residual, "rate/reference": self.reference(J)}


@task("bilinear")
class Bilinear(AffineGame):
    """x'Ay + b'x - c'y; `rows`, `columns` >= 1; singular values of A from `smallest` > 0 to `largest`.

    `law` of the singular values: linear, log, or edges (denser at both ends). Rectangular games have a kernel in which
    nothing moves.
    """

    FIGURES = frozenset({"spectral-shape"})

    def __init__(
        self,
        *,
        rows: int = 20,
        columns: int = 20,
        smallest: float = 0.1,
        largest: float = 1.0,
        law: str = "linear",
    ) -> None:
        _check_positive(rows=rows, columns=columns, smallest=smallest)
        _check_order(smallest=smallest, largest=largest)
        if law not in LAWS:
            raise ValueError(f"law is {law!r}; available: {', '.join(LAWS)}")
        self._rows, self._columns, self._ends, self._law = rows, columns, (smallest, largest), law

    def blocks(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """P = Q = 0 and A = U diag(s) V'."""
        m, n = self._rows, self._columns
        k = min(m, n)
        (low, high), at = self._ends, LAWS[self._law](torch.linspace(0, 1, k, dtype=torch.float64))
        s = low * (high / low) ** at if self._law == "log" else low + (high - low) * at
        A = _turn(m, generator)[:, :k] @ torch.diag(s) @ _turn(n, generator)[:, :k].T
        return torch.zeros(m, m, dtype=A.dtype), A, -A.T, torch.zeros(n, n, dtype=A.dtype)

    def reference(self, J: Tensor) -> float:
        """Rate of `bilinear_optimal`, which is also the lower bound for all first-order methods."""
        low, high = self._ends
        return math.sqrt((high - low) / (high + low))


@task("quadratic_game")
class QuadraticGame(AffineGame):
    """Own Hessians with eigenvalues in [own_min, own_max] and a coupling with singular values [coupling_min,
    coupling_max], `dimension` >= 1 variables for each player; `normal` leaves the bases of the blocks aligned.
    """

    def __init__(
        self,
        *,
        dimension: int = 15,
        own_min: float = 0.01,
        own_max: float = 0.1,
        coupling_min: float = 0.1,
        coupling_max: float = 1.0,
        normal: bool = False,
    ) -> None:
        _check_positive(dimension=dimension)
        _check_order(own_min=own_min, own_max=own_max)
        _check_order(coupling_min=coupling_min, coupling_max=coupling_max)
        if own_min < 0 or coupling_min < 0 or own_min + coupling_min == 0:
            raise ValueError(f"own_min is {own_min} and coupling_min {coupling_min}; neither below 0, one above 0")
        self._n, self._own, self._coupling = dimension, (own_min, own_max), (coupling_min, coupling_max)
        self._normal = normal

    def blocks(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """P and Q positive semidefinite, B = -A'."""
        own, coupling = (
            torch.diag(torch.linspace(*ends, self._n, dtype=torch.float64)) for ends in (self._own, self._coupling)
        )
        U, V, X, Y = (_turn(self._n, generator) for _ in range(4))
        if self._normal:
            X, Y = U, V
        A = X @ coupling @ Y.T
        return U @ own @ U.T, A, -A.T, V @ own @ V.T

    def reference(self, J: Tensor) -> float:
        """Rate of `hamiltonian` with momentum, at three evaluations per step."""
        singular = torch.linalg.svdvals(J)
        return math.cbrt(float((singular[0] - singular[-1]) / (singular[0] + singular[-1])))


@task("shape_game")
class ShapeGame(AffineGame):
    """A normal J with eigenvalues on a spectral shape, 2 `dimension` of them; `dimension` >= 4.

    `shape`: interval [mu, L]; disc with that diameter; ellipse with it and half height `reach`; vertical line at mu
    with heights reach/10 to reach; imaginary with the same heights; cross of the interval and a line of half height
    `reach` at its center; half_disc Re >= mu, modulus <= L. 0 < mu < L, reach > 0.
    """

    FIGURES = frozenset({"spectral-shape"})

    def __init__(
        self, *, shape: str = "cross", dimension: int = 20, mu: float = 0.02, L: float = 1.0, reach: float = 1.0
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape is {shape!r}; available: {', '.join(SHAPES)}")
        _check_positive(mu=mu, reach=reach)
        _check_order(mu=mu, L=L)
        if dimension < 4:
            raise ValueError(f"dimension is {dimension}; a shape needs at least 4 pairs of eigenvalues")
        self._shape, self._n, self._mu, self._L, self._reach = shape, dimension, mu, L, reach

    def eigenvalues(self) -> Tensor:
        """[dimension, 3]: rows (r, s, 0) of two real eigenvalues, rows (a, a, b) of a complex pair a +- ib."""
        return torch.cat([_pairs(self._real()), _rows(self._complex())])

    def blocks(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Blocks [[a, -b], [b, a]] or diag(r, s), one coordinate per player, in rotated bases."""
        rows = self.eigenvalues()
        first, second, height = rows[:, 0], rows[:, 1], rows[:, 2]
        U, V = _turn(len(rows), generator), _turn(len(rows), generator)
        A = -U @ torch.diag(height) @ V.T
        return U @ torch.diag(first) @ U.T, A, -A.T, V @ torch.diag(second) @ V.T

    def reference(self, J: Tensor) -> float:
        """The closed form for the shape, per gradient evaluation."""
        mu, L, b = self._mu, self._L, self._reach
        centre, half = (L + mu) / 2, (L - mu) / 2
        return {
            "interval": lambda: _polyak(mu, L),
            "disc": lambda: half / centre,
            "ellipse": lambda: (half + b) / (centre + math.sqrt(centre**2 + b**2 - half**2)),
            "vertical": lambda: math.sqrt(_polyak(mu**2 + (b / 10) ** 2, mu**2 + b**2)),
            "imaginary": lambda: math.sqrt(_polyak((b / 10) ** 2, b**2)),
            "cross": lambda: math.sqrt(_polyak(mu * L, centre**2 + b**2)),
            "half_disc": lambda: math.sqrt(1 - mu / L),
        }[self._shape]()

    def _real(self) -> Tensor:
        """Real eigenvalues, an even number of them."""
        count = {"interval": 2 * self._n, "cross": 2 * (self._n // 2), "vertical": 0, "imaginary": 0}
        return torch.linspace(self._mu, self._L, count.get(self._shape, 2), dtype=torch.float64)

    def _complex(self) -> Tensor:
        """Upper halves of the complex pairs."""
        mu, L, b, n = self._mu, self._L, self._reach, self._n
        centre, half = (L + mu) / 2, (L - mu) / 2
        height = torch.linspace(b / 10, b, n, dtype=torch.float64)
        angle = torch.linspace(0, math.pi, n + 1, dtype=torch.float64)[1:-1]
        if self._shape in ("vertical", "imaginary"):
            return torch.complex(torch.full_like(height, mu if self._shape == "vertical" else 0.0), height)
        if self._shape == "cross":
            up = torch.linspace(0, b, n - n // 2 + 1, dtype=torch.float64)[1:]
            return torch.complex(torch.full_like(up, centre), up)
        if self._shape in ("disc", "ellipse"):
            return torch.complex(centre + half * angle.cos(), (b if self._shape == "ellipse" else half) * angle.sin())
        if self._shape == "half_disc":
            up = torch.linspace(0, math.sqrt(L**2 - mu**2), n // 2 + 1, dtype=torch.float64)[1:]
            arc = torch.linspace(0, math.acos(mu / L), n - 1 - n // 2 + 2, dtype=torch.float64)[1:-1]
            return torch.cat([torch.complex(torch.full_like(up, mu), up), L * torch.complex(arc.cos(), arc.sin())])
        return torch.zeros(0, dtype=torch.complex128)


def _polyak(low: float, high: float) -> float:
    return (math.sqrt(high) - math.sqrt(low)) / (math.sqrt(high) + math.sqrt(low))


def _turn(n: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix [n, n]."""
    Q: Tensor = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return Q


def _players(model: Model) -> list[Player]:
    assert isinstance(model, list)
    return [player for player in model if isinstance(player, Player)]


def _norm(players: list[Player]) -> float:
    first, second = players
    with torch.no_grad():
        return float(torch.cat([first.field(second.at), second.field(first.at)]).norm())


def _pairs(real: Tensor) -> Tensor:
    """Rows (a, d, 0) of two real eigenvalues each."""
    half = real.view(-1, 2)
    return torch.cat([half, torch.zeros(len(half), 1, dtype=real.dtype)], 1)


def _rows(points: Tensor) -> Tensor:
    """Rows (a, a, b) of complex pairs a +- ib."""
    return torch.stack([points.real, points.real, points.imag], 1)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; it must be above 0")


def _check_order(**ends: float) -> None:
    (low_name, low), (high_name, high) = ends.items()
    if not low <= high < math.inf:
        raise ValueError(f"{low_name} is {low} and {high_name} is {high}; {low_name} must be the smaller one")
