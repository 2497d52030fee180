"""From config fields to parts."""

import pytest

from jaxvid.data.pipeline import EvalClips, TrainClips
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
