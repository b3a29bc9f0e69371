"""The wheel is whole: unpacked in an empty folder it has the sweeps, the guides and a starter that runs as it is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from orchestrator.cli.app import Exit
from orchestrator.cli.init import init
from orchestrator.definition import bundled
from orchestrator.protocol import lint

ROOT = Path(__file__).parents[1]
COMMAND = "from orchestrator.cli import main; main()"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with what the wheel holds; it is made from a copy, since building writes beside the source."""
    source, built, unpacked = (tmp_path_factory.mktemp(name) for name in ("source", "built", "unpacked"))
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("which files belong to the source is asked of git, and this is no checkout")
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(built), str(source)]
    done = subprocess.run(wheel, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(unpacked)
    return unpacked


def geosweep(installed, folder, *words):
    """Run the unpacked command in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_everything_that_comes_along_is_in_it(installed):
    for name in ("sweeps", "docs", "k8s"):
        here = {file.relative_to(ROOT / name) for file in (ROOT / name).rglob("*") if file.is_file()}
        there = {file.relative_to(installed / "geosweep" / name) for file in (installed / "geosweep" / name).rglob("*")}
        assert {file for file in here if file.suffix in (".yaml", ".md", ".json", ".ipynb")} <= there
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages == {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert packages == {path.parent.name for path in installed.glob("*/py.typed")}


def test_a_bundled_sweep_is_found_by_its_name(installed, tmp_path):
    done = geosweep(installed, tmp_path, "validate", "quickstart", "budget.per_trial=20")
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert str(installed / "geosweep" / "sweeps" / "quickstart.yaml") in done.stdout


def test_the_starter_runs_as_it_is(installed, tmp_path):
    assert geosweep(installed, tmp_path, "init", "mine").returncode == Exit.DONE
    mine = tmp_path / "mine"
    small = ("budget.per_trial=20", "budget.trials_per_arm=2", "seeds.studies=2")
    done = geosweep(installed, mine, "run", "sweep.yaml", *small, "--executor", "debug", "--no-tracking")
    assert done.returncode == Exit.DONE, done.stderr
    assert (mine / "runs").is_dir()


def test_the_starter_is_fair_and_writes_over_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    init(Path())
    assert lint.lint(Path("sweep.yaml").read_text(), "sweep.yaml") == []
    with pytest.raises(typer.Exit) as ended:
        init(Path())
    assert ended.value.exit_code == Exit.USAGE
    assert "sweep.yaml" in capsys.readouterr().err


def test_a_name_stands_for_a_bundled_sweep_and_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundled.sweep(Path("quickstart")) == ROOT / "sweeps" / "quickstart.yaml"
    assert bundled.sweep(Path("own_data/cifar100_sam")).is_file()
    Path("pbt_digits").mkdir()
    assert bundled.sweep(Path("pbt_digits")).is_file()
    Path("nothing").mkdir()
    assert bundled.sweep(Path("nothing")) == Path("nothing")
    Path("quickstart").write_text("name: mine\n")
    assert bundled.sweep(Path("quickstart")) == Path("quickstart")
    assert bundled.sweep(Path("nothing")) == Path("nothing")
    assert "did you mean pbt_digits?" in bundled.meant(Path("pbt_digit"))
    assert bundled.meant(Path("missing.yaml")) == ""
