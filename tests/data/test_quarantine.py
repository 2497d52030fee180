"""The list of bad videos: each file once, whatever happens to the process that writes it."""

import json
import threading

import pytest

from jaxvid.data.quarantine import Quarantine, TooManyBadVideosError


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_an_entry_has_all_fields_and_is_written_at_once(tmp_path):
    path = tmp_path / "new" / "quarantine.jsonl"
    quarantine = Quarantine(path, 0.5)
    assert not path.exists()
    assert quarantine.add("a.mp4", "a.mp4 is empty.", "train", 7, 3)
    assert lines(path) == [{"path": "a.mp4", "error": "a.mp4 is empty.", "split": "train", "id": 7, "frame": 3}]
    quarantine.add("b.mp4", "b.mp4 is empty.", "val", 0)
    assert lines(path)[1]["frame"] is None
    assert len(quarantine) == 2


def test_each_file_is_named_once_also_across_restarts_and_objects(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    first, second = Quarantine(path, 1.0), Quarantine(path, 1.0)
    assert first.add("a.mp4", "e", "train", 1)
    assert not first.add("a.mp4", "e", "train", 1)
    assert not second.add("a.mp4", "e", "train", 1)
    assert second.add("b.mp4", "e", "val", 1)
    assert not first.add("b.mp4", "e", "val", 1)
    assert not Quarantine(path, 1.0).add("b.mp4", "e", "val", 1)
    assert [entry["path"] for entry in lines(path)] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_half_a_line_of_a_killed_process_is_repaired(tmp_path, kept):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path, 1.0).add("a.mp4", "e", "train", 1)
    whole = path.read_bytes()
    Quarantine(path, 1.0).add("b.mp4", "e", "train", 2)
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    restarted = Quarantine(path, 1.0)
    assert len(restarted) == 1
    assert restarted.add("b.mp4", "e", "train", 2)
    assert [entry["path"] for entry in lines(path)] == ["a.mp4", "b.mp4"]
    assert restarted.count("train") == 2


def test_a_foreign_line_is_passed_over_and_reported(tmp_path, caplog):
    path = tmp_path / "quarantine.jsonl"
    path.write_text('nonsense\n[1]\n"text"\n{"no": "path"}\n{"path": "a.mp4", "error": "e"}\n')
    quarantine = Quarantine(path, 1.0)
    assert len(quarantine) == 1
    assert sum("not an entry" in record.getMessage() for record in caplog.records) == 4
    assert quarantine.add("b.mp4", "e", "train", 0)
    assert path.read_text().startswith("nonsense\n")  # what somebody else wrote is not ours to remove


def test_names_that_are_not_utf8_survive(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    Quarantine(path, 1.0).add(name, "é", "train", 0)
    assert lines(path)[0]["path"] == name
    assert not Quarantine(path, 1.0).add(name, "é", "train", 0)


def _add_many(path, names):
    quarantine = Quarantine(path, 1.0)
    for name in names:
        quarantine.add(name, "e" * 3000, "train", 0)


def test_objects_that_write_at_the_same_time_may_share_a_file(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    names = [f"{number}.mp4" for number in range(8)]
    # Each object opens the file by itself, so the lock keeps threads apart just as it does processes.
    threads = [threading.Thread(target=_add_many, args=(path, order)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(entry["path"] for entry in lines(path)) == sorted(names)


def test_hosts_write_different_files(tmp_path):
    for index in range(2):
        Quarantine(tmp_path / "quarantine.jsonl", 1.0, shard=(index, 2)).add(f"{index}.mp4", "e", "train", index)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quarantine-0-of-2.jsonl",
        "quarantine-1-of-2.jsonl",
    ]


def test_the_limit_names_count_share_limit_and_examples(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, 0.1)
    for id in range(7):
        quarantine.add(f"{id}.mp4", f"{id}.mp4 is empty.", "train", id)
    quarantine.check(70, "train")  # the limit itself is allowed
    quarantine.check(1, "val")
    with pytest.raises(TooManyBadVideosError) as caught:
        quarantine.check(69, "train")
    message = str(caught.value)
    assert message.startswith(
        "7 of 69 videos of the split 'train' (10.1%) could not be decoded, more than max_bad_fraction=0.1 allows: "
        "0.mp4 (0.mp4 is empty); 1.mp4 (1.mp4 is empty); "
    )
    assert message.endswith(f"4.mp4 (4.mp4 is empty); ...; all are listed in {path}.")


def test_splits_are_counted_apart_or_together():
    quarantine = Quarantine(None, 0.0)
    quarantine.check(10)
    quarantine.add("a.mp4", "e", "train", 0)
    quarantine.add("b.mp4", "e", "val", 0)
    assert (quarantine.count("train"), quarantine.count("val"), quarantine.count("test")) == (1, 1, 0)
    quarantine.check(10, "test")
    with pytest.raises(TooManyBadVideosError, match=r"^1 of 10 videos of the split 'val'"):
        quarantine.check(10, "val")
    with pytest.raises(TooManyBadVideosError, match=r"^2 of 20 videos \(10.0%\)"):
        quarantine.check(20)


def test_records_of_one_file_count_each():
    quarantine = Quarantine(None, 1.0)
    assert [quarantine.add("long.mp4", "e", "train", id) for id in (4, 5, 5)] == [True, False, False]
    assert quarantine.count("train") == 2
    assert len(quarantine) == 1


def test_the_count_goes_on_after_a_restart(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path, 0.5).add("a.mp4", "e", "train", 0)
    restarted = Quarantine(path, 0.5)
    restarted.add("b.mp4", "e", "train", 1)
    with pytest.raises(TooManyBadVideosError, match=r"^2 of 3"):
        restarted.check(3, "train")


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_the_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=r"max_bad_fraction must be in \[0, 1\], received"):
        Quarantine(None, fraction)
