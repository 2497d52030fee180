"""The commands, run in this process on a few small videos: what each prints and writes, and its exit status."""

import functools
import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxvid import benchmarks, cli, doctor
from jaxvid.benchmarks import cost_table
from jaxvid.benchmarks.clips import write_clip
from jaxvid.data.datasets import motion
from jaxvid.train import TrainResult, folds, stages

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SMOKE = f"--config={CONFIGS / 'folder.py'}:smoke"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """``CLASS/*.mp4``, 6 each; a third of each class is held out by ``data.val_fraction``."""
    root = tmp_path_factory.mktemp("videos")
    for label, name in enumerate(("clap", "wave")):
        (root / name).mkdir()
        for i in range(6):
            write_clip(root / name / f"{i}.mp4", num_frames=8, height=32, width=40, gop=4, seed=10 * label + i)
    return root


def data(root):
    return [f"--config.data.root={root}", "--config.data.val_fraction=0.34"]


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    """Folder of a run that ``jaxvid train`` made, and what it printed. The plain network compiles faster."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    with redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["train", SMOKE, f"--workdir={workdir}", "--config.model.name=r3d_18", *data(videos)]) == 0
    return workdir, printed.getvalue()


def test_train_prints_epochs_a_table_and_what_to_do_next(trained):
    workdir, printed = trained
    lines = printed.splitlines()
    assert lines[0].startswith("epoch   1.00 | step 1/1 | loss ")
    assert "r3d_18, width 4" in lines
    table = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")}
    assert table["num_clips"] == "4"
    assert table["num_missing"] == "0"
    assert 0 <= float(table["top1"]) <= 1
    assert lines[-2:] == [f"run: {workdir}", f"next: jaxvid eval --checkpoint={workdir}"]
    config = json.loads((workdir / "config.json").read_text())
    assert (config["data"]["name"], config["data"]["val_fraction"]) == ("folder", 0.34)


def test_a_stopped_run_is_not_offered_for_evaluation(monkeypatch, capsys, tmp_path):
    stopped = TrainResult(tmp_path, 3, {}, finished=False)
    monkeypatch.setattr(stages, "train", lambda config, workdir, progress: stopped)
    assert cli.main(["train", SMOKE, f"--workdir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert f"run: {tmp_path}" in printed
    assert "next:" not in printed


@pytest.mark.parametrize("finished", [True, False])
def test_train_with_folds_cross_validates(finished, monkeypatch, capsys, tmp_path):
    asked = []

    def cross_validate(config, workdir, progress):
        asked.append((config.data.folds, workdir))
        per_fold = dict.fromkeys(config.data.folds, 0.5) if finished else {}
        return folds.FoldsResult(tmp_path, {"top1": 0.5} if finished else {}, per_fold, finished=finished)

    monkeypatch.setattr(folds, "cross_validate", cross_validate)
    assert cli.main(["train", f"--config={CONFIGS / 'ut_interaction.py'}:set1", f"--workdir={tmp_path}"]) == 0
    ((names, workdir),) = asked
    assert (len(names), workdir) == (10, str(tmp_path))
    table = ["srtg_r3d_18, 10 folds", "  top1      0.5000"] if finished else []
    assert capsys.readouterr().out.splitlines() == [*table, f"run: {tmp_path}"]


@pytest.mark.parametrize("best", [False, True])
def test_eval_prints_both_tables_and_writes_where_it_says(best, trained, capsys, tmp_path):
    workdir, printed = trained
    words = ["eval", f"--checkpoint={workdir}", f"--output={tmp_path / 'out'}", *["--best"] * best]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["class", "clips"]
    assert [line.split()[:2] for line in lines[1:3]] == [["clap", "2"], ["wave", "2"]]
    assert "r3d_18, step 1" in lines
    metrics = lines[lines.index("r3d_18, step 1") + 1 : -1]
    assert metrics == [line for line in printed.splitlines() if line.startswith("  ")], "the same as after training"
    assert lines[-1] == f"results: {tmp_path / 'out'}"
    names = {"metrics.json", "per_class.csv", "per_class.txt", "confusion.png", "predictions.npz"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}


def test_eval_takes_fields_of_the_evaluation_and_no_others(trained, capsys, tmp_path):
    workdir, _ = trained
    words = ["eval", f"--checkpoint={workdir}", f"--output={tmp_path}"]
    assert cli.main([*words, "--config.eval.num_clips=2", "--config.eval.num_crops", "3"]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["num_views"] == 6
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["view_scores"].shape == (4, 6, 2)
    capsys.readouterr()
    assert cli.main([*words, "--config.model.width=8"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: model.width may not be changed at evaluation")
    assert "\n" not in error


def test_models_as_text_and_markdown(capsys):
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert any(line.split()[:2] == ["srtg_r3d_34", "83,861,072"] for line in text.splitlines())
    assert cli.main(["models", "--markdown"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert ["| srtg_r3d_34", "83,861,072"] in [row[:2] for row in rows]
    assert len({len(row) for row in rows}) == 1


def test_models_lists_the_ones_that_are_named(capsys):
    assert cli.main(["models", "i3d", "x3d_s", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["i3d", "x3d_s"]
    assert cli.main(["models", "i4d"]) == 1
    assert "did you mean 'i3d'" in capsys.readouterr().err


@pytest.fixture
def costs(monkeypatch):
    """What was asked of the compiler, which answers at once."""
    asked = []

    def cost_lines(names, *, progress, **options):
        asked.append((names, options))
        for name in names:
            yield {
                "model": name, "clip": [4, 8, 8], "parameter_bytes": 0, "state_bytes": 0, "temp_bytes": 0, "cores": 2,
                "peak_bytes": 2**30, "instructions": 7, "code_bytes": 0, "trace_cpu_seconds": 1.0, "cpu": "A processor",
                "compile_cpu_seconds": 2.0, "batch_size": 8, "dtype": "float32", "remat": False, "conv": "auto",
                "optimize": True, "num_classes": 400,
                "versions": dict.fromkeys(("jaxvid", "jax", "jaxlib", "flax"), "1.0"),
            }  # fmt: skip

    monkeypatch.setattr(cost_table, "cost_lines", cost_lines)
    return asked


def test_models_cost_prints_every_form(costs, capsys, tmp_path):
    assert cli.main(["models", "--cost", "i3d", "mfnet"]) == 0
    assert [row.split()[:2] for row in capsys.readouterr().out.splitlines()[-2:]] == [
        ["i3d", "4x8x8"],
        ["mfnet", "4x8x8"],
    ]
    assert cli.main(["models", "--cost", "i3d", "--json", "--batch_size=2", "--dtype=bfloat16"]) == 0
    assert json.loads(capsys.readouterr().out)["peak_bytes"] == 2**30
    file = str(tmp_path / "cost.jsonl")
    assert (
        cli.main(
            ["models", "--cost", "i3d", "--markdown", "--remat", "--conv=direct", "--unoptimized", f"--resume={file}"]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith("| i3d | 4x8x8 |")
    assert costs == [
        (["i3d", "mfnet"], {"resume": None, "remat": False, "optimize": True}),
        (["i3d"], {"resume": None, "remat": False, "optimize": True, "batch_size": 2, "dtype": "bfloat16"}),
        (["i3d"], {"resume": file, "remat": True, "optimize": False, "conv": "direct"}),
    ]


@pytest.mark.parametrize(
    "option", ["--batch_size=2", "--dtype=bfloat16", "--conv=auto", "--remat", "--unoptimized", "--resume=x.jsonl"]
)
def test_what_belongs_to_the_cost_is_refused_without_it(option, capsys):
    assert cli.main(["models", option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{option.partition('=')[0]} belongs to 'jaxvid models --cost'")


def test_data_make_makes_the_set_once_and_says_where(monkeypatch, capsys, tmp_path):
    small = functools.partial(motion.make_motion, num_train_per_class=1, num_val_per_class=1)
    monkeypatch.setattr(motion, "make_motion", small)
    root = tmp_path / "motion"
    words = ["data", "make", "motion", f"--root={root}", "--num_workers=0"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"videos: {root}\n"
    assert len(list(root.glob("*/*/*.mp4"))) == 24
    monkeypatch.setattr(motion, "make_tfds", lambda root, name: root / "tfds" / name)
    made = (root / "motion.json").stat().st_mtime_ns
    assert cli.main([*words, "--tfds"]) == 0
    assert capsys.readouterr().out == f"videos: {root}\nTFDS: {root / 'tfds' / 'motion'}\n"
    assert (root / "motion.json").stat().st_mtime_ns == made


def test_data_make_makes_the_fine_set(monkeypatch, capsys, tmp_path):
    small = functools.partial(motion.make_motion, num_train_per_class=1, num_val_per_class=1)
    monkeypatch.setattr(motion, "make_motion", small)
    monkeypatch.setattr(motion, "make_tfds", lambda root, name: root / "tfds" / name)
    root = tmp_path / "fine"
    assert cli.main(["data", "make", "motion_fine", f"--root={root}", "--num_workers=0", "--tfds"]) == 0
    assert capsys.readouterr().out == f"videos: {root}\nTFDS: {root / 'tfds' / 'motion_fine'}\n"
    assert len(list(root.glob("*/move_left_hop/*.mp4"))) == 2


def test_data_make_makes_the_digits(capsys, tmp_path):
    words = ["data", "make", "digits", f"--root={tmp_path / 'digits'}"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"images: {tmp_path / 'digits'}\n"
    assert len(list(tmp_path.glob("digits/*/*/*.png"))) == 1797
    for option in ("--tfds", "--num_workers=0"):
        assert cli.main([*words, option]) == 2
        assert "--tfds and --num_workers belong to the sets of videos" in capsys.readouterr().err


def test_data_check_reports_on_both_splits(videos, capsys):
    words = ["data", "check", SMOKE, *data(videos), "--num_workers=0"]
    assert cli.main(words) == 0
    assert "folder, split 'train': 8 videos, 0 of them broken" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(split["split"], split["num_videos"]) for split in report["splits"]] == [("train", 8), ("val", 4)]
    assert report["splits"][0]["class_counts"] == {"clap": 4, "wave": 4}
    assert report["broken"] == []


def test_data_check_ends_with_status_1_where_a_video_is_broken(videos, capsys, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    (root / "wave" / "5.mp4").write_bytes(b"")
    words = ["data", "check", SMOKE, f"--config.data.root={root}", "--config.data.val_fraction=0.2", "--num_workers=0"]
    assert cli.main([*words, "--json"]) == 1
    (broken,) = json.loads(capsys.readouterr().out)["broken"]
    assert broken["name"].endswith("wave/5.mp4")
    assert "must not be empty" in broken["error"]
    assert cli.main(words) == 1
    assert "1 broken videos:" in capsys.readouterr().out


def test_data_flow_makes_goes_on_and_says_what_next(videos, capsys, tmp_path):
    words = [
        "data",
        "flow",
        SMOKE,
        *data(videos),
        f"--output={tmp_path / 'flow'}",
        "--num_workers=0",
        "--short_side=16",
    ]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["num_videos"], report["num_made"], report["broken"]) == (12, 12, [])
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "12 videos: flow of 0 made, of 12 there already, of 0 impossible",
        f"flow: {tmp_path / 'flow'}",
        f"next: jaxvid train with --config.data.root={tmp_path / 'flow'} --config.data.modality=flow",
    ]
    assert cli.main([*words, "--bound=5"]) == 1
    assert "which was made with bound=20.0, and bound=5.0 now." in capsys.readouterr().err
    check = ["data", "check", SMOKE, *data(tmp_path / "flow"), "--num_workers=0", "--json"]
    assert cli.main(check) == 1
    assert "data.modality must be 'flow' where data.root is a folder that" in capsys.readouterr().err
    assert cli.main([*check, "--config.data.modality=flow"]) == 0
    assert [split["num_videos"] for split in json.loads(capsys.readouterr().out)["splits"]] == [8, 4]
    assert cli.main([*words, "--config.data.modality=flow"]) == 2
    assert "data.modality must be 'rgb' with 'jaxvid data flow'" in capsys.readouterr().err


def test_data_flow_ends_with_status_1_where_a_video_is_broken(videos, capsys, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    for i in range(4):
        for name in ("clap", "wave"):
            (tmp_path / "videos" / name / f"{i}.mp4").unlink()
    (tmp_path / "videos" / "wave" / "5.mp4").write_bytes(b"no video")
    words = ["data", "flow", SMOKE, *data(tmp_path / "videos"), f"--output={tmp_path / 'flow'}", "--num_workers=0"]
    assert cli.main([*words, "--short_side=16"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 videos: flow of 3 made, of 0 there already, of 1 impossible:"
    assert "wave/5.mp4" in lines[1]
    assert json.loads((tmp_path / "flow" / "quarantine.jsonl").read_text())["path"].endswith("wave/5.mp4")
    assert (tmp_path / "flow" / "wave" / "5.mp4").read_bytes() == b""


def test_data_flow_refuses_images(capsys, tmp_path):
    words = ["data", "flow", f"--config={CONFIGS / 'digits.py'}", f"--config.data.root={tmp_path / 'digits'}"]
    assert cli.main([*words, f"--output={tmp_path / 'flow'}"]) == 1
    error = capsys.readouterr().err
    assert "train/0/0000.png: an image has no flow." in error
    assert not (tmp_path / "flow").exists()


def test_data_browse_draws_the_rows_that_were_asked_for(videos, capsys, tmp_path):
    heights = []
    for rows in (1, 3):
        output = tmp_path / f"{rows}.png"
        assert cli.main(["data", "browse", SMOKE, *data(videos), f"--output={output}", f"--rows={rows}"]) == 0
        assert capsys.readouterr().out == f"picture: {output}\n"
        with Image.open(output) as picture:
            heights.append(picture.height)
    assert heights[1] > 2 * heights[0]


def test_bench_prints_one_json_line_for_each_case(monkeypatch, capsys):
    seen = []

    def bench(options):
        seen.append(options)
        yield from ({"case": 0}, {"case": 1})

    monkeypatch.setattr(benchmarks, "BENCHMARKS", dict.fromkeys(benchmarks.BENCHMARKS, bench))
    for name in benchmarks.BENCHMARKS:
        assert cli.main(["bench", name, "--runs=2", "--seeds=1", "--clip=4,16,16"]) == 0
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"case": 0}, {"case": 1}]
    assert [options.name for options in seen] == ["decode", "motion", "ops", "pipeline", "step"]
    assert {(options.runs, options.seeds, options.clip, options.batch_size) for options in seen} == {
        (2, 1, "4,16,16", 16)
    }


def test_bench_offers_every_benchmark(capsys):
    assert cli.main(["bench", "everything"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in benchmarks.BENCHMARKS)
    assert cli.main(["bench", "step", "--clip=4,16"]) == 1
    assert capsys.readouterr().err == "error: clip must be three numbers T,H,W, each >= 1, received clip='4,16'.\n"


def test_bench_ops_prints_json_and_draws_and_plot_draws_the_same(tmp_path, capsys):
    pictures = [tmp_path / "at-once.png", tmp_path / "later.png"]
    assert (
        cli.main(["bench", "ops", "--quick", "--json", "--runs=1", "--op=temporal_shift", f"--plot={pictures[0]}"]) == 0
    )
    out = capsys.readouterr().out
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["op"] for line in lines} == {"temporal_shift"}
    (tmp_path / "ops.jsonl").write_text(out)
    assert cli.main(["bench", "plot", str(tmp_path / "ops.jsonl"), f"--output={pictures[1]}"]) == 0
    assert capsys.readouterr().out == f"written: {pictures[1]}\n"
    with Image.open(pictures[0]) as a, Image.open(pictures[1]) as b:
        assert a.tobytes() == b.tobytes()
    assert cli.main(["bench", "plot", str(tmp_path / "ops.jsonl"), f"--output={tmp_path / 'ops.md'}"]) == 0
    assert "## temporal_shift" in (tmp_path / "ops.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["plot"], 2, "FILE.jsonl belongs to 'jaxvid bench plot' and to no other, received plot and None."),
        (
            ["step", "x.jsonl"],
            2,
            "FILE.jsonl belongs to 'jaxvid bench plot' and to no other, received step and x.jsonl.",
        ),
        (["step", "--plot=x.png"], 2, "--plot belongs to 'jaxvid bench ops', received it with step."),
        (["ops", "--op=conv3"], 1, "did you mean 'conv3d'?"),
        (["ops", "--dtype=float23"], 1, "did you mean 'float32'?"),
    ],
)
def test_bench_refuses_what_does_not_belong_together(arguments, status, message, capsys):
    assert cli.main(["bench", *arguments]) == status
    assert message in capsys.readouterr().err


@pytest.fixture
def checks(monkeypatch):
    """The doctor finds what the test says."""

    def find(*statuses):
        found = [doctor.Check(f"part{k}", status, "as seen", "Mend it.") for k, status in enumerate(statuses)]
        monkeypatch.setattr(doctor, "diagnose", lambda: found)

    return find


@pytest.mark.parametrize(("worst", "status"), [("PASS", 0), ("WARN", 0), ("FAIL", 1)])
def test_the_doctors_status_and_how_to_mend(worst, status, checks, capsys):
    checks("PASS", worst)
    assert cli.main(["doctor"]) == status
    mend = [] if worst == "PASS" else ["      mend: Mend it."]
    assert capsys.readouterr().out.splitlines() == ["PASS  part0: as seen", f"{worst}  part1: as seen", *mend]
    assert cli.main(["doctor", "--json"]) == status
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {"name": "part1", "status": worst, "detail": "as seen", "fix": "Mend it."}


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, ImportError])
def test_what_goes_wrong_is_one_line_without_a_traceback_unless_asked_for(error, monkeypatch, capsys):
    def fail():
        raise error("the disk is gone")

    monkeypatch.setattr(doctor, "diagnose", fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr() == ("", "error: the disk is gone\n")
    with pytest.raises(error, match="the disk is gone"):
        cli.main(["doctor", "--debug"])


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(doctor, "diagnose", lambda: SimpleNamespace().nothing)
    with pytest.raises(AttributeError):
        cli.main(["doctor"])


def test_without_arguments_the_words_are_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["jaxvid", "data", "make", "motoin"])
    assert cli.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxvid data make: ")
    assert "'motoin'" in error
