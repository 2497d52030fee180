"""The folders of a run in stages."""

import pytest

from jaxvid.train.stage_folders import FILE, newest_stage, stages_folder, write_stages


def test_the_newest_stage_is_the_last_with_a_checkpoint(tmp_path):
    assert newest_stage(tmp_path) == tmp_path
    write_stages(tmp_path, ["universal", "specific"])
    assert newest_stage(tmp_path) == tmp_path
    (tmp_path / "universal" / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "specific" / "checkpoints").mkdir(parents=True)  # begun, and not yet saved
    assert newest_stage(tmp_path) == tmp_path / "universal"
    (tmp_path / "specific" / "checkpoints" / "1").mkdir()
    assert newest_stage(tmp_path) == tmp_path / "specific"
    assert newest_stage(tmp_path / "universal") == tmp_path / "universal"
    assert stages_folder(tmp_path / "universal" / "checkpoints") == tmp_path
    assert stages_folder(tmp_path.parent) is None


@pytest.mark.parametrize("text", ["", "{broken", "[]", "{}", '{"stages": 3}', '{"stages": ["../other"]}'])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"stages\.json must hold the names of a run's stages, and is damaged"):
        newest_stage(tmp_path)
