"""The command line: help with examples, usage errors in one sentence, and commands that need no training."""

import json
import os
import subprocess
import sys

import pytest

from jaxvid import cli
from jaxvid.cli import commands

COMMANDS = [
    ["train"],
    ["eval"],
    ["compare"],
    ["fuse"],
    ["predict"],
    ["explain"],
    ["models"],
    ["data"],
    ["data", "make"],
    ["data", "check"],
    ["data", "browse"],
    ["data", "flow"],
    ["bench"],
    ["doctor"],
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"jaxvid {' '.join(command)}".strip() in text.split("examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--workdir=x"], "the following arguments are required: --config"),
        (["eval", "--checkpoint=x", "--outptu=y"], "Did you mean --output?"),
        (["train", "--config=c.py", "--workdir=x", "--config.data.root"], "--config.data.root must have a value"),
        (["models", "--config.data.root=x"], "may only be given to a command that reads a config"),
        (["models", "--json", "--markdown"], "not allowed with argument"),
        (["models", "--quite=different"], "jaxvid models has no option --quite. See 'jaxvid models --help'."),
        (["data", "check", "--config=c.py", "--jsn"], "jaxvid data check has no option --jsn. Did you mean --json?"),
        (["train", "--config=c.py", "--workdir=x", "--config.a.b", "--debug"], "--config.a.b must have a value"),
        (["bench", "decode", "--runs=many"], "invalid int value: 'many'"),
        (["data"], "the following arguments are required: COMMAND"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(arguments, sentence, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.optimizer.learning_rte=1", "did you mean optimizer.learning_rate?"),
        ("--config.train.batch_size=many", "train.batch_size must be an integer, received 'many'."),
        ("--config.data.crop_size=999", "data.crop_size must be <= data.short_side[0]"),
    ],
)
def test_a_wrong_config_is_one_sentence_and_status_1(override, sentence, capsys, tmp_path):
    path = tmp_path / "c.py"
    path.write_text("from jaxvid.config import base\n\n\ndef get_config():\n    return base()\n")
    assert cli.main(["train", f"--config={path}", f"--workdir={tmp_path}", override]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error


def test_an_override_may_follow_as_a_word_of_its_own(capsys, tmp_path):
    path = tmp_path / "c.py"
    path.write_text("from jaxvid.config import base\n\n\ndef get_config():\n    return base()\n")
    assert cli.main(["train", "--config", str(path), "--workdir", str(tmp_path), "--config.train.seed", "x"]) == 1
    assert "train.seed must be an integer, received 'x'" in capsys.readouterr().err


def test_debug_keeps_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="existing file"):
        cli.main(["train", "--debug", "--config=no.py", f"--workdir={tmp_path}"])


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("jaxvid 0.")


def test_models_as_json(capsys):
    assert cli.main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    row = next(row for row in rows if row["name"] == "srtg_r3d_34")
    assert row["params"] == 83_861_072
    assert row["clip"] == [16, 224, 224]
    assert abs(row["macs"] / 42.677e9 - 1) < 0.005


def test_an_absent_checkpoint_is_one_sentence(capsys, tmp_path):
    assert cli.main(["eval", f"--checkpoint={tmp_path / 'nowhere'}"]) == 1
    error = capsys.readouterr().err.strip()
    assert "nowhere" in error
    assert "\n" not in error


def test_doctor_prints_a_line_for_each_check(capsys):
    status = cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert status in (0, 1)
    assert any(line.startswith(("PASS", "WARN", "FAIL")) and "jax" in line for line in lines)


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_reader_that_leaves_ends_the_command_quietly(buffering):
    """As in ``jaxvid models | head -1``, here with a reader that is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "jaxvid.cli", "models"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": buffering},
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_another_broken_pipe_is_an_error(monkeypatch, capsys):
    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(commands, "list_models", broken)
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().err == "error: [Errno 32] Broken pipe\n"


def test_ctrl_c_is_one_word(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "list_models", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        cli.main(["models", "--debug"])


def test_a_bug_keeps_its_traceback(monkeypatch):
    def buggy(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(commands, "list_models", buggy)
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["models"])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def get_config(:\n    pass", "c.py:1: not valid Python"),
        ("1 + 'a'", "c.py:1: TypeError: unsupported operand"),
        ("import jaxvid\n\n\ndef get_config():\n    return jaxvid.nope", "c.py:5: AttributeError: "),
        ("def get_config():\n    return None", "get_config() must return the config"),
        ("from jaxvid.config import base\n\n\ndef get_config():\n    c = base()\n    c.train.batchsize = 3",
         "c.py:6: train.batchsize is not a field of the config (received 3); did you mean train.batch_size?"),
    ],
)  # fmt: skip
def test_a_broken_config_file_is_one_sentence_and_status_1(body, sentence, capsys, tmp_path):
    path = tmp_path / "c.py"
    path.write_text(body, encoding="utf-8")
    assert cli.main(["train", f"--config={path}", f"--workdir={tmp_path}"]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error
