"""Paths belong to the sweep file: found from any folder, in a root that was moved, and by who may only read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.command import REPOSITORY, environment, fresh, hiding
from tests.orchestrator.sweep_files import sweep_text

TASK = """
from pathlib import Path
from tests.tasks import Fit
class Mine(Fit):
    def __init__(self, *, data: str) -> None:
        super().__init__()
        self.rows = Path(data).read_text()
"""
MODES = (1, 2, 3)  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
"""Capabilities without which the superuser keeps to modes as anybody does."""


def geosweep(*words: str, here: Path, drop: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in environment().items() if not k.startswith("GEOSWEEP")}
    return fresh(*words, cwd=here, env={**env, "HOME": str(here)}, drop=drop)


PLACES = """
import sys
from orchestrator.executors.ray_worker_group import import_from
sys.path[:] = [one for one in sys.path if one != {installed!r}]  # as an editable install, which a finder finds
import_from([{here!r}, *sys.path])
import trainables, task_of_here
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["-m geosweep list --root runs", "-c the-worker"])
def test_a_folder_hides_nothing_that_is_installed(how: str, tmp_path: Path) -> None:
    """Python itself puts the current folder first for -m and -c."""
    shutil.rmtree(hiding(tmp_path) / "geosweep")  # which `-m geosweep` would run
    (tmp_path / "task_of_here.py").write_text("from trainables import Task\nclass Mine(Task): pass")
    words = how.split()
    if words[0] == "-c":
        words[1] = PLACES.format(installed=str(REPOSITORY), here=str(tmp_path))
        words.insert(0, "-P")
    env = {**environment(), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_one_whose_module_is_hidden_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "statistics.py").write_text("class Mine: pass")
    (tmp_path / "fit.yaml").write_text(sweep_text().replace("tests.tasks:Fit", "statistics:Mine"))
    with pytest.raises(SpecError, match=r"has no class 'Mine'; statistics is .*lib.*so .*statistics.py is not looked"):
        sweep_file.load(tmp_path / "fit.yaml")


def test_a_class_alone_is_looked_for_beside_the_sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSWEEP_BESIDE", str(tmp_path))
    (tmp_path / "shapes.py").write_text("raise RuntimeError\nclass Spirals: pass")
    for name in ("Spirals", "Spiral"):
        (tmp_path / "fit.yaml").write_text(sweep_text().replace("tests.tasks:Fit", name))
        with pytest.raises(SpecError, match=rf"no task '{name}'; did you mean shapes:Spirals\?$"):
            sweep_file.load(tmp_path / "fit.yaml")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its root, run from a folder beside it, then moved as a whole."""
    place = tmp_path_factory.mktemp("place")
    for name in ("project", "elsewhere"):
        (place / "old" / name).mkdir(parents=True)
    (place / "old" / "project" / "task_of_beside.py").write_text(TASK)
    (place / "old" / "project" / "rows.csv").write_text("1,2")
    (place / "old" / "elsewhere" / "rows.csv").mkdir()  # beside the file comes first
    text = sweep_text(trials=1, confirm=6, method="random", per_trial=8)
    text = text.replace("tests.tasks:Fit", "task_of_beside:Mine")
    text = text.replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", ", data: rows.csv")
    (place / "old" / "project" / "fit.yaml").write_text(text)
    words = ("run", "../project/fit.yaml", "--executor", "debug", "--no-tracking", "--root", "../runs")
    done = geosweep(*words, here=place / "old" / "elsewhere")
    assert done.returncode == 0, done.stderr
    return Path(shutil.move(place / "old", place / "new"))


@pytest.fixture
def read_only(moved: Path) -> Iterator[Path]:
    every = [moved, *moved.rglob("*")]
    modes = {path: path.stat().st_mode for path in every}
    for path in every:
        path.chmod(modes[path] & ~0o222)
    yield moved
    for path in every:
        path.chmod(modes[path])


VERBS = """
import sys, traceback
from orchestrator.cli import main
first, root, *verbs = sys.argv
for verb in verbs:
    sys.argv = ["geosweep", *verb.split(), "--root", root]
    try:
        main()
    except SystemExit as end:
        if end.code:
            print(f"FAILED: geosweep {verb}: exit code {end.code}", file=sys.stderr)
    except BaseException:
        print(f"FAILED: geosweep {verb}", traceback.format_exc(), file=sys.stderr)
print("ALL", len(verbs))
"""


def all_of(verbs: Sequence[str], root: Path, here: Path, drop: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """`geosweep VERB` for each of the verbs, one after another in one process that has loaded nothing of the user's."""
    program = here / "verbs.py"
    program.write_text(VERBS)
    env = {k: v for k, v in environment().items() if not k.startswith("GEOSWEEP")}
    done = fresh(str(root), *verbs, cwd=here, program=program, env={**env, "HOME": str(here)}, drop=drop)
    assert f"ALL {len(verbs)}" in done.stdout.splitlines(), done.stderr
    assert "FAILED" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_from_any_folder_in_a_root_that_was_moved(moved: Path, tmp_path: Path) -> None:
    verbs = ["compare @last", "table @last --by lr", "report @last", "verify @last"]
    assert "Traceback" not in all_of(verbs, moved / "runs", tmp_path).stderr


@pytest.mark.slow
def test_what_reads_needs_nothing_else(read_only: Path, tmp_path: Path) -> None:
    """A process that may not write there runs each verb that only reads."""
    verbs = ["status @last", "best @last", "list", "logs @last", "metrics @last", "verify @last", "compare @last",
             "table @last --by lr", f"export @last -o {tmp_path}/out", f"report @last -o {tmp_path}/out"]  # fmt: skip
    all_of(verbs, read_only / "runs", tmp_path, drop=MODES if os.geteuid() == 0 else ())


@pytest.mark.slow
def test_one_without_rights_cannot_write_there(read_only: Path, tmp_path: Path) -> None:
    """What the test above would not see if its process could write in spite of the modes."""
    done = geosweep("delete", "@last", "--yes", "--root", str(read_only / "runs"), here=tmp_path,
                    drop=MODES if os.geteuid() == 0 else ())  # fmt: skip
    assert done.returncode != 0
    assert list((read_only / "runs").glob("*/resolved.json"))


@pytest.mark.slow
def test_one_who_only_reads_sees_who_holds_a_sweep(moved: Path, read_only: Path) -> None:
    folder = SweepFolder(moved / "runs", next(path.parent.name for path in (moved / "runs").glob("*/resolved.json")))
    assert not folder._is_locked()
    (folder.path / "lock").chmod(0o644)
    folder.path.chmod(0o755)
    with folder.hold():
        assert folder._is_locked()
