"""The README keeps its word: its commands run and say what it shows, its results are generated."""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import cli
from edge_lstm.errors import UsageError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")
WEATHER = ROOT / "benchmarks" / "edge_lstm_benchmarks" / "models" / "weather"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shown_commands() -> Iterator[tuple[str, str]]:
    """Yield each ``$ edge-lstm`` line of the README and the output shown below it."""
    for block in blocks("console"):
        command, _, output = block.partition("\n")
        if command.startswith("$ edge-lstm "):
            yield command.removeprefix("$ "), output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that the README speaks of, as the first command leaves it."""
    pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    for name in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(name, reason=f"{name} not found: pip install 'edge-lstm[firmware]'")
    folder = tmp_path_factory.mktemp("readme") / "weather"
    shutil.copytree(WEATHER, folder)
    return folder


def without_figures(text: str) -> str:
    """Return ``text`` with each number as ``#``, and the space that numbers take as one."""
    return re.sub(r"[ -]+", " ", re.sub(r"-?\d[\d,]*(\.\d+)?(e-?\d+)?", "#", text)).strip()


def test_readme_shows_every_command() -> None:
    words = {command.split()[1] for command, _ in shown_commands()}
    assert words == {"convert", "inspect", "run", "verify", "bench", "doctor", "simulate"}
    # Its own test runs the demo.
    assert "make demo" in blocks("console")[0]


def test_commands_of_the_readme_say_what_it_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for command, shown in shown_commands():
        capsys.readouterr()
        assert cli.run(shlex.split(command)[1:]) == 0, command
        said = capsys.readouterr().out
        is_bench = command.split()[1] == "bench"
        if is_bench:
            # The order is by speed, and what is not installed has a row with its reason.
            assert shown.splitlines()[2].split() == said.splitlines()[2].split()
            for backend in ("numpy-int8:tflm", "tflm", "litert"):
                assert re.search(rf"^  {backend} ", said, re.MULTILINE), said
            continue
        lines = iter(without_figures(line) for line in said.splitlines())
        for line in shown.splitlines():
            if line != "...":
                assert without_figures(line) in lines, f"{command}: does not say {line!r}"


def test_python_of_the_readme_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    commands = [shlex.split(command) for command, _ in shown_commands()]
    native = next(words for words in commands if "native" in words)
    for words in (commands[0], native):
        assert cli.run(words[1:]) == 0
    run, compiled, from_torch, alone = blocks("python")
    monkeypatch.syspath_prepend("out/weather_native")
    for block in (run, compiled, alone):
        exec(compile(block, "README.md", "exec"), {})
    pytest.importorskip("torch", reason="torch not found: pip install torch")
    exec(compile(from_torch, "README.md", "exec"), {})
    import edge_lstm

    y = edge_lstm.load("net.elstm").predict(np.zeros((2, 5, 7), np.float32))
    assert y.shape == (2, 1)


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_modules_that_the_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf8")
    plain = {name for name in re.findall(r"(?<!\*)\b([a-z_/]+\.py)\b", text) if "<" not in name}
    assert len(plain) >= 10
    for name in plain:
        assert any(ROOT.glob(f"*/**/{name.rpartition('/')[2]}")), name
    tree = text[text.index("edge_lstm/   ") : text.index("## Rules")]
    for package, lines in re.findall(r"^(\S+)/ .*\n((?:^  .*\n)*)", tree, re.MULTILINE):
        for names in re.findall(r"^  ([a-z_]+(?:, [a-z_]+)*)  ", lines, re.MULTILINE):
            for name in names.split(", "):
                folder = ROOT / package
                assert (folder / f"{name}.py").exists() or (folder / name).is_dir(), name


def test_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from edge_lstm import errors

    table = dict(re.findall(r"^\| (\d+) \| (\w+)", README, re.MULTILINE))
    assert {
        str(error.exit_code)
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.EdgeLstmError)
    } <= set(table)
    assert str(cli.EXIT_INTERRUPTED) in table


def test_profiles_of_the_readme_are_those_there_are() -> None:
    from edge_lstm import PROFILES
    from edge_lstm.program import EDGE

    section = README[README.index("### Profiles") : README.index("### Exit codes")]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == (*PROFILES, EDGE)


def form_of(block: str) -> list[str]:
    """Return the lines of a results block without figures, rows sorted: they are by speed."""
    lines = [without_figures(line) for line in block.splitlines()]
    ran = [re.sub(r"\| not run: .*", "| not run", line) for line in lines]
    return sorted({re.sub(r"\| [#(].*", "| ...", line) for line in ran if "Machine:" not in line})


def test_results_of_the_readme_have_the_form_that_the_command_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_lstm.backend import BenchModel
    from edge_lstm.samples import Samples
    from edge_lstm_benchmarks import results
    from edge_lstm_benchmarks.harness import BenchOptions

    whole = results.sample_model

    def few(name: str) -> tuple[BenchModel, Samples]:
        model, samples = whole(name)
        assert samples.y is not None
        return model, replace(samples, x=samples.x[:50], y=samples.y[:50])

    monkeypatch.setattr(results, "sample_model", few)
    once = BenchOptions(rounds=1, slice_ms=0.1, warm_ms=0.0, cold_runs=0, inside=False)
    made = results.results_markdown(date(2026, 11, 23), once)
    start, end = README.index(results.START), README.index(results.END)
    kept = README[start : end + len(results.END)]
    missing = [name for name in results.BACKENDS if f"| {name} | not run" in made]
    assert not any(name.startswith("numpy") for name in missing), made
    skipped = tuple(f"| {without_figures(name)} " for name in missing)
    made_form, kept_form = (
        [line for line in form_of(block) if not line.startswith(skipped)] for block in (made, kept)
    )
    assert made_form == kept_form


def test_results_replace_only_their_block() -> None:
    from edge_lstm_benchmarks.results import END, START, replace_block

    text = f"before\n{START}\nold\n{END}\nafter\n"
    assert replace_block(text, f"{START}\nnew\n{END}") == f"before\n{START}\nnew\n{END}\nafter\n"
    with pytest.raises(UsageError, match="no place for results"):
        replace_block("a README without them", "new")
