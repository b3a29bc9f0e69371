"""A task of one's own that is written in another way than `module:Class` is recognized."""

import sys
from pathlib import Path

import pytest

from trainables import registry

SOURCE = """from trainables import Task

class Noise:
    pass

class Rings(Task):
    METRICS = {}
"""


@pytest.mark.parametrize(
    "written, said",
    [
        ("rings_of_mine.py:Rings", "did you mean rings_of_mine:Rings?"),
        ("./rings_of_mine.py:Rings", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine.Rings", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine.py", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine:rings", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine:Ring", "did you mean rings_of_mine:Rings?"),
        ("rings_of_mine:Noise", "'rings_of_mine:Noise' is not a trainables.Task"),
        ("no_rings.py:Rings", "available: bilinear, digits"),
        ("json.Rings", "available: bilinear, digits"),
        ("digit", "did you mean digits?"),
        ("a/b:", "available: bilinear, digits"),
        ("", "available: bilinear, digits"),
    ],
)
def test_names_of_tasks(written: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rings_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rings_of_mine", raising=False)
    with pytest.raises(KeyError) as caught:
        registry.lookup(written)
    assert said in str(caught.value.args[0])
