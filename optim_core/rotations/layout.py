"""How parameters become pieces: matrices [out, in] and vectors that a rotation treats as units.

What counts as a unit (arXiv 2410.19964, section 3.1 and appendix B.1): each weight tensor, a fused query-key-value
split in three along the out axis, convolutions as (out, in * height * width), biases and norms as separate vectors. An
embedding is stored (vocabulary, width) = (in, out) and is transposed first, unless the same tensor is also the head; a
head tied by a function call instead of a module cannot be detected: set `embedding_transpose` to false then. Not
handled: a fused tensor with three parts of different size (grouped queries) is split in equal thirds anyway; weights
stored (in, out) that are not embeddings are taken as (out, in). Such parameters can be excluded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from optim_core.rotations.base import Options, Piece

FUSED = frozenset({"qkv", "c_attn", "in_proj", "in_proj_weight", "in_proj_bias", "qkv_proj", "to_qkv", "wqkv"})
WORDS = {
    "q": frozenset({"q", "query", "q_proj", "to_q", "wq"}),
    "k": frozenset({"k", "key", "k_proj", "to_k", "wk"}),
    "v": frozenset({"v", "value", "v_proj", "to_v", "wv"}),
    "o": frozenset({"o", "out", "o_proj", "out_proj", "to_out", "wo"}),
    "mlp_in": frozenset({"fc1", "c_fc", "up_proj", "gate_proj", "linear1", "lin1", "inward", "mlp_in", "w1"}),
    "mlp_out": frozenset({"fc2", "down_proj", "linear2", "lin2", "outward", "mlp_out", "w2"}),
}
EMBED, NORM, TIED = "embed", "norm", "tied"
NORMS = re.compile(r"norm|^bn\d*$|^ln(_\w+|\d*)$", re.IGNORECASE)
OUTER, INNER = "module", frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What wrappers add to names: data parallelism at the front, compilers and sharding anywhere."""


def bare_names(names: Sequence[str]) -> list[str]:
    """Names without wrappers' additions, so that a bare, a compiled and a distributed model have the same rotations.

    A name is unchanged if two would become the same.
    """
    found = [_bare(name) for name in names]
    return [full if found.count(short) > 1 else short for full, short in zip(names, found, strict=True)]


def _bare(name: str) -> str:
    *modules, last = (step for step in name.split(".") if step not in INNER)
    while modules and modules[0] == OUTER:
        del modules[0]
    return ".".join([*modules, last])


def words_of(model: nn.Module | None) -> dict[str, frozenset[str]]:
    """What the types of modules imply about their parameters: embed, norm, tied (embedding and head at once)."""
    if model is None:
        return {}
    named = list(model.named_parameters())
    names = dict(zip([p for _, p in named], bare_names([name for name, _ in named]), strict=True))
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for module in model.modules():
        kind = EMBED if isinstance(module, nn.Embedding) else NORM if NORMS.search(type(module).__name__) else ""
        for p in module.parameters(recurse=False):
            if kind and p in names:
                found[names[p]].add(kind)
            elif isinstance(module, nn.Linear) and p.ndim == 2:
                found[names[p]].add("linear")
    return {name: frozenset(w | {TIED} if {EMBED, "linear"} <= w else w) for name, w in found.items()}


@dataclass(frozen=True)
class Cut:
    """A range of rows of a parameter that is a piece, or not rotated if `piece` is None."""

    first: int
    last: int
    piece: Piece | None
    turned: bool


class Layout:
    """Cuts tensors with the shapes of named parameters into pieces and puts them together again."""

    def __init__(
        self,
        named: Sequence[tuple[str, Tensor]],
        options: Options,
        words: Mapping[str, frozenset[str]],
        memory: Mapping[Tensor, MutableMapping[str, Any]],
        *,
        vectors: bool,
    ) -> None:
        """`vectors`: whether the kind also rotates vectors. `memory` of each parameter is shared by its pieces."""
        self._vectors, self._options = vectors, options
        self.patterns = frozenset(_patterns(options.include) + _patterns(options.exclude))
        self.unmatched = set(self.patterns)
        self._cuts = [self._cut(name, p, words.get(name, frozenset()), memory[p]) for name, p in named]
        self._full = [p.shape for _, p in named]
        self.pieces = [cut.piece for cuts in self._cuts for cut in cuts if cut.piece is not None]

    def split(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor per piece, at least float32. [*shape] -> [out, in] or [n]"""
        found = []
        for t, cuts in zip(tensors, self._cuts, strict=True):
            for cut in cuts:
                if cut.piece is not None:
                    wide = widened(t)
                    part = wide if len(cuts) == 1 else wide[cut.first : cut.last]
                    matrix = part.reshape(part.shape[0], -1) if part.ndim > 1 else part.reshape(-1)
                    found.append(matrix.T.contiguous() if cut.turned else matrix)
        return found

    def join(self, originals: Sequence[Tensor], pieces: Sequence[Tensor]) -> list[Tensor]:
        """Tensors with the pieces' values; the rest comes from `originals`.

        A tensor keeps the shape of its original if the number of coordinates allows it; otherwise it is flat or a
        matrix.
        """
        rest = iter(pieces)
        found = []
        for t, cuts in zip(originals, self._cuts, strict=True):
            if all(cut.piece is None for cut in cuts):
                found.append(t)
                continue
            parts = [
                t[cut.first : cut.last] if cut.piece is None else self._turned_back(cut, next(rest)) for cut in cuts
            ]
            whole = parts[0] if len(parts) == 1 else torch.cat([p.reshape(-1) for p in parts])
            found.append(whole.reshape(t.shape) if whole.numel() == t.numel() else whole)
        return found

    def split_rotated(
        self, tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Undo `join` for rotated tensors with pieces of the given `shapes`: pieces, and originals with the rest."""
        rest = iter(shapes)
        pieces, originals = [], []
        for t, cuts, full in zip(tensors, self._cuts, self._full, strict=True):
            if all(cut.piece is None for cut in cuts):
                originals.append(t)
                continue
            wide = widened(t)
            flat, at = wide.reshape(-1), 0
            original = torch.empty(full, dtype=wide.dtype, device=wide.device)
            for cut in cuts:
                shape = original[cut.first : cut.last].shape if cut.piece is None else next(rest)
                part = flat[at : at + math.prod(shape)]
                at += len(part)
                if cut.piece is None:
                    original[cut.first : cut.last] = part.view(shape)
                else:
                    pieces.append(part.view(shape[::-1]).T.contiguous() if cut.turned else part.view(shape))
            originals.append(original)
        return pieces, originals

    def _turned_back(self, cut: Cut, piece: Tensor) -> Tensor:
        return piece.T.contiguous() if cut.turned else piece

    def _cut(self, name: str, p: Tensor, typed: frozenset[str], memory: MutableMapping[str, Any]) -> list[Cut]:
        steps = [step.lower() for step in name.split(".")]
        fused = any(step in FUSED for step in steps[-2:]) and p.ndim >= 1 and p.shape[0] % 3 == 0 and p.shape[0] > 0
        if p.ndim == 2 and p.shape[1] == 3 * p.shape[0]:  # stored (in, 3 out): its rows are not thirds
            fused = False
        parts = ("q", "k", "v") if fused else ("",)
        rows = p.shape[0] // len(parts) if p.ndim else 1
        cuts = []
        for i, part in enumerate(parts):
            words = typed | _guess(steps, part, p.ndim)
            turned = EMBED in words and TIED not in words and p.ndim == 2 and self._options.embedding_transpose
            shape: tuple[int, ...] = (rows, p[0].numel() if p.numel() else 0) if p.ndim > 1 else (rows,)
            piece = Piece(
                name=f"{name}/{part}" if part else name,
                shape=shape[::-1] if turned else shape,
                words=words,
                memory=memory,
                part=f"{part}/" if part else "",
            )
            chosen = self._chosen(name, piece) and p.numel() > 0 and (self._vectors or piece.is_matrix)
            cuts.append(Cut(i * rows, (i + 1) * rows, piece if chosen else None, turned))
        return cuts

    def _chosen(self, name: str, piece: Piece) -> bool:
        def hit(patterns: Iterable[str]) -> bool:
            found = [x for x in patterns if x in piece.words or fnmatchcase(name, x) or fnmatchcase(piece.name, x)]
            self.unmatched -= set(found)
            return bool(found)

        excluded, included = hit(_patterns(self._options.exclude)), hit(_patterns(self._options.include))
        return included and not excluded


def widened(t: Tensor) -> Tensor:
    """In float32 at least."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def _guess(steps: Sequence[str], part: str, ndim: int) -> frozenset[str]:
    """Words derived from a name's parts: attention and perceptron parts, bias, vector, matrix."""
    found = {"matrix" if ndim > 1 else "vector"}
    if ndim > 2:
        found.add("conv")
    if steps[-1].endswith("bias"):
        found.add("bias")
    if part:
        found.add(part)
    for word, spellings in WORDS.items():
        found |= {word} if any(step in spellings for step in steps[-2:]) else set()
    if steps[-2:-1] == ["c_proj"]:
        found.add("o" if any("attn" in step for step in steps) else "mlp_out")
    if ndim <= 1 and any(NORMS.search(step) for step in steps[:-1]):
        found.add(NORM)
    return frozenset(found)


def _patterns(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
