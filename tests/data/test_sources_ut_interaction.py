"""UT-Interaction: folds, labels, and what is refused."""

import pytest

from jaxvid.data.records import DatasetError
from jaxvid.data.sources.ut_interaction import CLASS_NAMES, folds, read_ut_interaction


@pytest.fixture
def fake(tmp_path):
    for label, name in enumerate(CLASS_NAMES):
        (tmp_path / name).mkdir()
        for sequence in range(1, 21):
            (tmp_path / name / f"s{1 + (sequence > 10)}_{sequence * 6 + label}_{sequence}_{label}.avi").touch()
    return tmp_path


def test_every_clip_is_tested_exactly_once_and_never_by_a_fold_that_trained_on_it(fake):
    tested = []
    for fold in folds(1, 2):
        train = {r.name for r in read_ut_interaction(fake, f"train-{fold}")}
        test = [r.name for r in read_ut_interaction(fake, f"test-{fold}")]
        assert len(train) == 54
        assert len(test) == 6
        assert not train & set(test)
        tested += test
    assert len(tested) == len(set(tested)) == 120


def test_a_fold_leaves_out_one_whole_sequence_of_its_own_set(fake):
    train = read_ut_interaction(fake, "train-set2-seq13")
    sequences = {r.name.split("_")[2] for r in train}
    assert sequences == {str(s) for s in range(11, 21) if s != 13}


def test_labels_and_ids(fake):
    dataset = read_ut_interaction(fake, "test-set1-seq01")
    assert [r.label for r in dataset] == [0, 1, 2, 3, 4, 5]
    assert [r.id for r in dataset] == list(range(6))
    assert dataset.class_names == CLASS_NAMES


@pytest.mark.parametrize("split", ["train", "test-set1-seq11", "val-set1-seq01", "test-set3-seq01"])
def test_other_split_names_are_refused(fake, split):
    with pytest.raises(ValueError, match=r"split must be .*received"):
        read_ut_interaction(fake, split)


def test_options_that_make_no_sense_are_refused(fake):
    with pytest.raises(ValueError, match=r"val_fraction=0\.2"):
        read_ut_interaction(fake, "test-set1-seq01", val_fraction=0.2)


def test_files_that_contradict_the_layout_are_listed(fake):
    (fake / "hug" / "s1_1_1_2.avi").touch()
    (fake / "hug" / "clip.avi").touch()
    (fake / "hug" / "s1_1_15_1.avi").touch()
    with pytest.raises(DatasetError) as caught:
        read_ut_interaction(fake, "test-set1-seq01")
    text = str(caught.value)
    assert "must lie in 'kick', received 'hug'" in text
    assert "clip.avi" in text
    assert "received 15" in text


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="received none"):
        read_ut_interaction(tmp_path, "test-set1-seq01")


@pytest.mark.data
def test_the_real_set_has_120_clips(shared):
    root = shared("data", "ut_interaction")
    counts = {fold: len(read_ut_interaction(root, f"test-{fold}")) for fold in folds(1, 2)}
    assert sum(counts.values()) == 120
    assert counts["set1-seq06"] == 5
    assert counts["set1-seq08"] == 7
