"""The corpus and its tokens: which files, which side, nothing lost, comparable in bits per byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.tasks import stdlib_lm
from trainables.tasks.stdlib_lm import BYTES, StdlibLM, corpus, encode, read_corpus, vocabulary_of


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_tests_packages_and_other_files_stay_out(tmp_path: Path) -> None:
    wanted = {f"pack{i}/mod.py": b"x = %d\n" % i for i in range(60)}
    plain = read_corpus(write(tmp_path / "a", wanted))
    unwanted = {
        "test/t.py": b"1",
        "pack1/tests/t.py": b"2",
        "site-packages/p.py": b"3",
        "data.txt": b"4",
        "m.pyc": b"5",
    }
    assert read_corpus(write(tmp_path / "b", {**wanted, **unwanted})) == plain
    assert sum(len(text) for text in plain.splits.values()) == sum(map(len, wanted.values()))
    assert all(plain.splits.values())


def test_the_digest_knows_names_and_contents(tmp_path: Path) -> None:
    first = read_corpus(write(tmp_path / "a", {"a.py": b"one", "b.py": b"two"}))
    assert read_corpus(write(tmp_path / "b", {"a.py": b"one", "b.py": b"twO"})).digest != first.digest
    assert read_corpus(write(tmp_path / "c", {"a.py": b"onet", "b.py": b"wo"})).digest != first.digest
    assert read_corpus(write(tmp_path / "d", {"a.py": b"one", "c.py": b"two"})).digest != first.digest


def test_bytes_above_127_become_127(tmp_path: Path) -> None:
    found = read_corpus(write(tmp_path, {"a.py": "é".encode()}))
    assert "".join(found.splits.values()) == "\x7f\x7f"


@pytest.mark.slow
def test_the_standard_library_is_large_and_split_by_file() -> None:
    sizes = {name: len(text) for name, text in corpus().splits.items()}
    assert sum(sizes.values()) > 5_000_000
    assert 0.8 < sizes["train"] / sum(sizes.values()) < 0.95
    assert min(sizes.values()) > 100_000


@pytest.mark.slow
def test_under_a_megabyte_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    corpus.cache_clear()
    try:
        assert corpus().digest != read_corpus(tmp_path).digest  # torch's source stands in
        corpus.cache_clear()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r"under 1 MB of Python source in .*; install"):
            corpus()
    finally:
        corpus.cache_clear()


@pytest.mark.slow
def test_words_are_spelt_in_bytes_or_have_a_token_and_nothing_is_lost() -> None:
    text = corpus().splits["val"][:200_000]
    words = vocabulary_of(text, 600)
    tokens = encode(text, words).tolist()
    spelling = {token: word for word, token in words.items()} | {i: chr(i) for i in range(BYTES)}
    assert "".join(spelling[t] for t in tokens) == text
    assert sorted(words.values()) == list(range(BYTES, 600))
    assert len(tokens) < 0.6 * len(text)
    assert encode(text, {}).tolist() == list(text.encode())


def test_frequent_words_come_first() -> None:
    assert vocabulary_of("if if if if x of of a bb bb", BYTES + 2) == {" if": BYTES, " bb": BYTES + 1}


def test_targets_are_the_next_tokens() -> None:
    inputs, targets = StdlibLM(block=16, batch_size=4).batch(0, 3)
    assert inputs.shape == targets.shape == (4, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert "".join(map(chr, inputs[0].tolist())) in corpus().splits["train"]


def test_a_uniform_model_needs_seven_bits_for_a_byte() -> None:
    class Uniform(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, BYTES)

    found = StdlibLM(block=8).evaluate(Uniform())
    assert found["loss/val"] == pytest.approx(math.log(BYTES))
    assert found["bits_per_byte/val"] == pytest.approx(7.0)
    assert found["bits_per_byte/test"] == pytest.approx(7.0)


def test_the_corpus_is_a_fact_and_part_of_every_batchs_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    task = StdlibLM()
    assert task.facts() == {"corpus_sha256": corpus().digest}
    before = task.batch_identity(0, 0)
    other = stdlib_lm.Corpus(corpus().splits, "0" * 64)
    monkeypatch.setattr(stdlib_lm, "corpus", lambda: other)
    assert task.batch_identity(0, 0) != before


@pytest.mark.parametrize(
    "values",
    [{"tokens": "bpe"}, {"vocabulary": 128}, {"block": 0}, {"heads": 3}, {"dropout": 1.0}, {"attention": "flash"}],
)
def test_bad_parameters_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        StdlibLM(**values)
