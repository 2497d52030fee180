"""From config fields to parts."""

import shutil
from pathlib import Path

import pytest

from jaxvid import config as config_lib
from jaxvid import models
from jaxvid.config import Config, ModelConfig
from jaxvid.data.pipeline import EvalClips, TrainClips
from jaxvid.models.class_regularized import class_regularized
from jaxvid.train import assemble, train


def test_clips_have_the_fields_of_the_config(tiny):
    config = tiny(**{"data.flip": True, "data.mirror": ("bend=clap",), "eval.num_crops": 3})
    train = assemble.train_clips(config, ("bend", "clap", "wave"))
    assert train == TrainClips(
        num_frames=4, frame_stride=1, sampler="random", short_side=(20, 20), crop_size=16, flip=True, mirror=(1, 0, 2)
    )
    evaluated = assemble.eval_clips(config)
    assert isinstance(evaluated, EvalClips)
    assert (evaluated.num_crops, evaluated.short_side, evaluated.crop_size) == (3, 20, 16)


def test_the_modality_reaches_the_clips_and_must_be_that_of_the_root(tiny, tmp_path):
    root = Path(tiny().data.root)
    flow = tmp_path / "flow"
    shutil.copytree(root, flow)
    (flow / "flow.json").write_text("{}")
    config = tiny(**{"data.modality": "flow", "data.flip": True, "data.root": str(flow)})
    assert assemble.train_clips(config, ("bend", "clap", "wave")).modality == "flow"
    assert len(assemble.open_dataset(config, "train")) == len(assemble.open_dataset(tiny(), "train"))
    for modality, place, holds in (("rgb", flow, "optical flow"), ("flow", root, "none"), ("flow", "", "none")):
        with pytest.raises(ValueError, match=f"data.modality={modality!r} with .*, which holds {holds}"):
            assemble.open_dataset(tiny(**{"data.modality": modality, "data.root": str(place)}), "train")


def test_the_splits_of_all_folds(tiny):
    assert assemble.split_names(tiny()) == ("train", "val")
    assert assemble.split_names(tiny(**{"data.eval_split": "train"})) == ("train",)
    folds = {"data.folds": ("1", "2"), "data.train_split": "train{fold}", "data.eval_split": "test{fold}"}
    assert assemble.split_names(tiny(**folds)) == ("train1", "test1", "train2", "test2")


def test_an_unknown_class_in_mirror_is_named():
    with pytest.raises(ValueError, match="received 'hop' in 'hop=clap'"):
        assemble.mirrored_labels(("hop=clap",), ("bend", "clap"))


def test_no_pairs_change_no_label():
    assert assemble.mirrored_labels((), ("a", "b")) is None


def test_srtg_options_reach_the_model(tiny):
    config = tiny(**{"model.name": "srtg_r3d_18", "model.srtg.cell": "gru", "model.srtg.num_layers": 1})
    model = assemble.build_model(config, 3)
    assert model.srtg.cell == "gru"
    assert model.num_classes == 3


def test_class_regularization_reaches_the_model(tiny):
    field = "model.class_regularization."
    assert assemble.build_model(tiny(), 3) == models.build("r3d_18", 3, width=2)
    config = tiny(**{f"{field}enabled": True, f"{field}affection_rates": (0.8, 0.5), f"{field}scope": "all"})
    model = assemble.build_model(config, 3)
    assert model == class_regularized(
        "r3d_18", models.build("r3d_18", 3, width=2), affection_rates=(0.8, 0.5), scope="all"
    )
    assert model.normalization_scope == "all"


def test_width_64_is_the_paper_s_network_in_every_family():
    def build(**model):
        return assemble.build_model(Config(model=ModelConfig(**model)), 3)

    for name in ("r3d_18", "x3d_s", "x3d_xl"):
        assert build(name=name) == models.build(name, 3)
    assert build(name="x3d_xl", width=32, conv="shifted") == models.build(
        "x3d_xl", 3, width_factor=1.45, conv="shifted"
    )


def test_an_unknown_data_set_is_named(tiny):
    with pytest.raises(ValueError, match="folder"):
        assemble.open_dataset(tiny(**{"data.name": "foldr"}), "train")


@pytest.mark.parametrize(
    ("field", "value", "near"), [("model.name", "srtg_r3d_81", "18"), ("data.name", "foldr", "folder")]
)
def test_an_unknown_name_stops_a_run_before_it_begins(field, value, near, tiny, tmp_path):
    with pytest.raises(ValueError, match=rf"^{field} must be .* received {field}='{value}'; did you mean '.*{near}'"):
        train(tiny(**{field: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_read_by_the_names_of_the_configured_splits(tiny, videos, tmp_path):
    (tmp_path / "fit").symlink_to(videos / "train")
    dataset = assemble.open_dataset(tiny(**{"data.root": str(tmp_path), "data.train_split": "fit"}), "fit")
    assert len(dataset) == len(assemble.open_dataset(tiny(), "train"))


def test_the_srtg_reader_gets_its_own_options(tiny, tmp_path):
    (tmp_path / "Run").mkdir()
    (tmp_path / "Run" / "a.mp4").write_bytes(b"x")
    (tmp_path / "hacs_train.csv").write_text("label,id,split\nRun,a,train\nHop,b,train\n")
    (tmp_path / "order.json").write_text('{"Run": 0, "Hop": 1}')
    fields = {"data.name": "srtg_csv", "data.root": str(tmp_path), "data.dictionary": str(tmp_path / "order.json")}
    assert assemble.open_dataset(tiny(**fields), "train").class_names == ("Run", "Hop")
    with pytest.raises(ValueError, match="Hop"):
        assemble.open_dataset(tiny(**fields, **{"data.missing": "error"}), "train")


MTNET = Path(__file__).resolve().parents[2] / "configs" / "mtnet.py"


@pytest.mark.parametrize(
    ("argument", "fields"),
    [
        ("", {"delta": 0.875, "cell": "gru", "pool": "soft", "selection": "lowest"}),
        ("delta=0.5", {"delta": 0.5}),  # thesis, table 5.6
        ("cell=peephole_lstm", {"cell": "peephole_lstm"}),  # table 5.7
        ("pool=stochastic,selection=none", {"pool": "stochastic", "selection": "none"}),  # table 5.8
    ],
)
def test_an_argument_is_a_row_of_the_thesis_ablations(argument, fields):
    model = assemble.build_model(config_lib.load(f"{MTNET}:{argument}" if argument else str(MTNET)), 12)
    assert {name: getattr(model, name) for name in fields} == fields


def test_options_of_a_network_reach_it():
    config = config_lib.load(
        {}, {"model.name": "r3d_50", "model.remat": True, "model.options": ("pool=soft", "expansion=4")}
    )
    model = assemble.build_model(config, 3)
    assert (model.remat, model.pool, model.expansion, model.width) == (True, "soft", 4, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("pool",), r"model\.options must hold each option once, as name=value, received 'pool'\."),
        (("pool=soft", "pool=max"), r"each option once, .* received 'pool=max'\."),
        (("pol=soft",), r"the options of 'r3d_18' must be among .*'pol'; did you mean 'pool'"),
        (("pool=sof",), r"pool must be one of max, avg, soft, received pool='sof'"),
    ],
)
def test_wrong_options_are_named_before_anything_is_made(options, message):
    config = config_lib.load({}, {"model.name": "r3d_18", "model.options": options})
    with pytest.raises(ValueError, match=message):
        assemble.check_names(config)
