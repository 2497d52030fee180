"""Kinetics' and the SRTG authors' CSV files, and the UCF-101 and HMDB-51 lists, on small fake copies."""

import json
import logging

import pytest

from jaxvid.data import open_dataset
from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError, DatasetError
from jaxvid.data.sources.hmdb51 import read_hmdb51
from jaxvid.data.sources.kinetics import read_kinetics
from jaxvid.data.sources.srtg_csv import read_srtg_csv
from jaxvid.data.sources.ucf101 import read_ucf101

HEADER = "label,youtube_id,time_start,time_end,split"


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else "\n".join(content).encode() if content else b""
        (root / name).write_bytes(content)
    return str(root)


def rows(dataset):
    return [(record.name, dataset.class_names[record.label], record.start, record.end) for record in dataset]


@pytest.fixture
def kinetics(tmp_path):
    return write(
        tmp_path,
        {
            "train.csv": [
                HEADER + ",is_cc",
                "riding a bike,-abc_DEF123,3,13,train,0",
                '"hugging (not baby)",zzz,0,10,train,1',
                "riding a bike,whole,20,30,train,0",
                "riding a bike,gone,1,11,train,0",
            ],
            "validate.csv": [HEADER, "riding a bike,vvv,7,17,validate"],
            "train/riding a bike/-abc_DEF123_000003_000013.mp4": b"",
            "train/hugging_(not_baby)/zzz_000000_000010.mkv": b"",
            "val/vvv_000007_000017.mp4": b"",
            "whole.mp4": b"",
        },
    )


def test_kinetics(kinetics, caplog):
    with caplog.at_level(logging.WARNING):
        train = open_dataset("kinetics", kinetics, "train", annotations="", val_fraction=0.0)
    assert train.class_names == ("hugging (not baby)", "riding a bike")
    assert rows(train) == [
        ("train/hugging_(not_baby)/zzz_000000_000010.mkv", "hugging (not baby)", None, None),
        ("train/riding a bike/-abc_DEF123_000003_000013.mp4", "riding a bike", None, None),
        ("train/riding a bike/gone_000001_000011.mp4", "riding a bike", None, None),
        ("whole.mp4", "riding a bike", 20.0, 30.0),
    ]
    assert "1 of 4 videos of split train are missing, first train/riding a bike/gone" in caplog.text
    for split in ("val", "validate", "validation"):
        assert rows(read_kinetics(kinetics, split)) == [("val/vvv_000007_000017.mp4", "riding a bike", None, None)]
    assert read_kinetics(kinetics, "val").class_names == train.class_names


def test_a_missing_video_stays_and_becomes_a_bad_one(kinetics):
    record = read_kinetics(kinetics, "train")[2]
    with pytest.raises(BadVideoError, match=r"gone_000001_000011\.mp4 cannot be opened: No such file"):
        VideoReader(record.video)
    with pytest.raises(
        DatasetError, match=r"train\.csv:5: a listed video must exist under .*, received 'train/riding a bike/gone"
    ):
        read_kinetics(kinetics, "train", missing="error")
    with pytest.raises(ValueError, match="missing must be 'keep' or 'error', received missing='drop'"):
        read_kinetics(kinetics, "train", missing="drop")


def test_when_nothing_is_there_the_root_is_wrong(tmp_path):
    root = write(tmp_path, {"train.csv": [HEADER, "a,x,0,1,train", "b,y,0,1,train"]})
    with pytest.raises(DatasetError, match=r"^2 problems:"):
        read_kinetics(root, "train")


def test_annotations_may_lie_elsewhere(kinetics, tmp_path):
    files = {
        "k400_train.csv": [HEADER, "a,-abc_DEF123,3,13,train"],
        "k400_val.csv": [HEADER, "a,vvv,7,17,val"],
        "other_train.csv": [HEADER, "z,vvv,7,17,train"],
    }
    lists = write(tmp_path / "lists", files)
    assert read_kinetics(kinetics, "val", annotations=f"{lists}/k400_train.csv").class_names == ("a",)
    assert len(read_kinetics(kinetics, "train", annotations="lists/k400_val.csv")) == 1
    with pytest.raises(DatasetError, match=r"data\.annotations must be a CSV file, received 'none.csv'"):
        read_kinetics(kinetics, "train", annotations="none.csv")
    write(tmp_path, {"labels/other.csv": [HEADER]})
    with pytest.raises(
        DatasetError, match=r"must name one of the CSV files under .*, which holds labels/other\.csv, train"
    ):
        read_kinetics(kinetics, "train")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["a,b"], r":1: the first line must name the columns label, split, youtube_id, received \['a', 'b'\]"),
        ([], r":1: the first line must name the columns"),
        ([HEADER, ",x,0,1,train"], r":2: label must not be empty"),
        ([HEADER, "a,,0,1,train"], r":2: youtube_id must not be empty"),
        ([HEADER, "a,x,0,1,"], r":2: split must not be empty"),
        ([HEADER, "a,x,0,1,train", "a,y,0,1,trian"], r"list\.csv:3: split must be one of train, .*received 'trian'$"),
        ([HEADER, "a,x,1,train"], r":2: a line must have as many fields as the first"),
        ([HEADER, "a,x,0,1,train,6,7"], r":2: a line must have as many fields"),
        ([HEADER, "a,x,5,5,train"], r":2: times must hold 0 <= time_start < time_end, received '5' and '5'"),
        ([HEADER, "a,x,-1,5,train"], r":2: times must hold"),
        ([HEADER, "a,x,zero,5,train"], r":2: times must hold .*received 'zero' and '5'"),
        ([HEADER, "a,x,0,inf,train"], r":2: times must hold"),
        ([HEADER, "a,x,,5,train"], r":2: times must hold"),
        ([HEADER, "a,../../etc/passwd,0,1,train"], r":2: youtube_id must be a name without a folder, .*'../../etc"),
        ([HEADER, "a,/etc/passwd,0,1,train"], r":2: youtube_id must be a name without a folder"),
        ([HEADER, "../a,x,0,1,train"], r":2: label must not lead out of the root, received '../a'"),
        ([HEADER, "a,x,0,1,train", "", "a,x,0,1,train"], r":4: a video must be listed once, .* \(first at .*:2\)"),
        ([HEADER, "a,x,0,1,train", "b,y,0,1,test"], r":3: a class of split 'test' must also occur in 'train', .*'b'"),
        ([HEADER, 'a,"x,0,1,train'], r":2: a line must be valid CSV"),
        ([HEADER, "a,x,0,1,test"], r"split 'train' of 'kinetics' data under .* must list at least 1 video, received 0"),
    ],
)  # fmt: skip
def test_wrong_lines_are_named(lines, match, tmp_path):
    root = write(tmp_path, {"list.csv": lines, "x_000000_000001.mp4": b""})
    with pytest.raises(DatasetError, match=match) as caught:
        read_kinetics(root, "train")
    assert len(caught.value.problems) == 1


def test_files_that_cannot_be_read(tmp_path):
    root = write(tmp_path, {"list.csv": HEADER.encode() + b"\n\xff\xfe\xe9,x,0,1,train"})
    with pytest.raises(DatasetError, match=r"list\.csv:1: the file must be readable as UTF-8"):
        read_kinetics(root, "train")
    write(tmp_path, {"list.csv": b"\xef\xbb\xbf" + f"{HEADER}\r\na,x,0,1,train\r\n".encode(), "x.mp4": b""})
    assert rows(read_kinetics(root, "train")) == [("x.mp4", "a", 0.0, 1.0)], "a byte order mark and Windows line ends"


def test_all_problems_come_at_once_and_at_most_twenty_are_shown(tmp_path):
    root = write(tmp_path, {"list.csv": [HEADER, *(f"a,x{k},9,1,train" for k in range(50))]})
    with pytest.raises(DatasetError, match=r"^50 problems:") as caught:
        read_kinetics(root, "train")
    assert str(caught.value).count("\n") == 21
    assert str(caught.value).endswith("... and 30 more")


def test_the_same_file_twice_under_the_root(tmp_path):
    files = {"list.csv": [HEADER, "a,x,0,1,train"], "one/x_000000_000001.mp4": b"", "two/x_000000_000001.mp4": b""}
    with pytest.raises(
        DatasetError, match=r"a video must lie in one place, received 'one/x_000000_000001\.mp4' and 'two/"
    ):
        read_kinetics(write(tmp_path, files), "train")
    write(tmp_path, {"a/x_000000_000001.mp4": b""})
    assert read_kinetics(str(tmp_path), "train")[0].name == "a/x_000000_000001.mp4", "the class's folder decides"


@pytest.mark.parametrize("read", [read_kinetics, read_srtg_csv])
def test_the_splits_have_several_names(read, tmp_path):
    names = ("train", "Training", "val", "valid", "validate", "validation", "test", "testing")
    lines = [HEADER, *(f"a,x{k},0,1,{name}" for k, name in enumerate(names))]
    root = write(tmp_path, {"list.csv": lines, **{f"x{k}.mp4": b"" for k in range(8)}})
    assert [len(read(root, split)) for split in ("train", "training", "val", "test", "testing")] == [2, 2, 4, 2, 2]
    write(tmp_path, {"list.csv": [*lines, "a,x9,0,1,trian"]})
    with pytest.raises(DatasetError, match=r"list\.csv:10: split must be one of .*, received 'trian'"):
        read(root, "train")


@pytest.fixture
def srtg(tmp_path):
    return write(
        tmp_path,
        {
            "labels/hacs_train.csv": [HEADER, "Zumba,zz,1.7,3.2,train", "Archery,aa,0.0,2.0,train"],
            "labels/hacs_val.csv": [HEADER, "Archery,vv,10.5,12.5,val"],
            "labels/hacs_dictionary.json": [json.dumps({"Zumba": 0, "Archery": 1})],
            "Zumba/zz_000001_000003.mp4": b"",
            "Archery/aa.mp4": b"",
            "Archery/vv.avi": b"",
        },
    )


def test_srtg_csv(srtg):
    train = open_dataset("srtg_csv", srtg, "train", annotations="labels/hacs_train.csv", val_fraction=0.0)
    assert train.class_names == ("Archery", "Zumba")
    assert rows(train) == [("Archery/aa.mp4", "Archery", 0.0, 2.0), ("Zumba/zz_000001_000003.mp4", "Zumba", None, None)]
    assert rows(read_srtg_csv(srtg, "val")) == [("Archery/vv.avi", "Archery", 10.5, 12.5)]


def test_srtg_dictionary(srtg, tmp_path):
    file = tmp_path / "labels" / "hacs_dictionary.json"
    train = read_srtg_csv(srtg, "train", dictionary=str(file))
    assert train.class_names == ("Zumba", "Archery")
    assert [record.label for record in train] == [1, 0]
    for content, match in (
        ({"Zumba": 1, "Archery": 2}, "must map K labels to 0 .. K-1"),
        ({"Zumba": 0}, "must hold every label, received none for 'Archery'"),
        ([], "must map K labels"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=match):
            read_srtg_csv(srtg, "train", dictionary=str(file))
    with pytest.raises(DatasetError, match="must be a JSON file"):
        read_srtg_csv(srtg, "train", dictionary=str(tmp_path / "none.json"))


def test_srtg_ids_without_times(tmp_path):
    root = write(
        tmp_path,
        {
            "ucf101_split1_train.csv": ["label,id,split", "Run,v_Run_g01_c01,train"],
            "ucf101_split1_test.csv": ["label,id,split", "Run,v_Run_g02_c01,test"],
            "Run/v_Run_g01_c01.avi": b"",
            "Run/v_Run_g02_c01.avi": b"",
        },
    )
    assert rows(read_srtg_csv(root, "train")) == [("Run/v_Run_g01_c01.avi", "Run", None, None)]
    assert rows(read_srtg_csv(root, "test")) == [("Run/v_Run_g02_c01.avi", "Run", None, None)]


@pytest.fixture
def ucf(tmp_path):
    return write(
        tmp_path,
        {
            "ucfTrainTestlist/classInd.txt": ["1 ApplyEyeMakeup", "2 YoYo", ""],
            "ucfTrainTestlist/trainlist01.txt": ["YoYo/v_YoYo_g08_c01.avi 2", "ApplyEyeMakeup/v_A_g08_c01.avi 1"],
            "ucfTrainTestlist/testlist01.txt": ["YoYo/v_YoYo_g01_c01.avi"],
            "ucfTrainTestlist/trainlist02.txt": ["YoYo/v_YoYo_g01_c01.avi 2"],
            "UCF-101/YoYo/v_YoYo_g08_c01.avi": b"",
            "UCF-101/YoYo/v_YoYo_g01_c01.avi": b"",
            "UCF-101/ApplyEyeMakeup/v_A_g08_c01.avi": b"",
        },
    )


def test_ucf101(ucf):
    train = open_dataset("ucf101", ucf + "/UCF-101", "train", annotations="", val_fraction=0.0)
    assert train.class_names == ("ApplyEyeMakeup", "YoYo")
    assert [r[:2] for r in rows(train)] == [
        ("ApplyEyeMakeup/v_A_g08_c01.avi", "ApplyEyeMakeup"),
        ("YoYo/v_YoYo_g08_c01.avi", "YoYo"),
    ]
    assert len(read_ucf101(ucf + "/UCF-101", "test01", annotations=ucf + "/ucfTrainTestlist")) == 1
    assert read_ucf101(ucf + "/UCF-101", "train2")[0].name == "YoYo/v_YoYo_g01_c01.avi"
    with pytest.raises(ValueError, match=r"split must be train or test, .*received split='val'"):
        read_ucf101(ucf, "val")
    with pytest.raises(DatasetError, match=r"must be the folder that holds classInd\.txt, received 'x'"):
        read_ucf101(ucf, "train", annotations="x")
    with pytest.raises(DatasetError, match=r"testlist03\.txt:1: the file must be readable"):
        read_ucf101(ucf + "/UCF-101", "test3")


@pytest.mark.parametrize(
    ("file", "lines", "match"),
    [
        ("classInd.txt", ["1 A", "3 B"], r"classInd\.txt:2: a line must be '2 CLASS', received '3 B'"),
        ("classInd.txt", ["1 YoYo", "2 YoYo"], r":2: class names must differ, received 'YoYo' again"),
        ("trainlist01.txt", ["YoYo/v.avi 1"], r":1: the index of 'YoYo' must be 2, received 1"),
        ("trainlist01.txt", ["Golf/v.avi 2"], r":1: a class must be one of classInd\.txt, received 'Golf'"),
        ("trainlist01.txt", ["YoYo/../../v.avi 2"], r":1: a path must be CLASS/FILE, received 'YoYo/../../v\.avi'"),
        ("trainlist01.txt", ["v.avi 2"], r":1: a path must be CLASS/FILE, received 'v\.avi'"),
        ("trainlist01.txt", ["YoYo/none.avi 2"], r":1: a listed video must exist under .*, received 'YoYo/none\.avi'"),
        ("trainlist01.txt", ["YoYo/v_YoYo_g08_c01.avi 2"] * 2, r":2: a video must be listed once"),
    ],
)
def test_ucf101_lists_are_checked(file, lines, match, ucf, tmp_path):
    write(tmp_path, {f"ucfTrainTestlist/{file}": lines})
    with pytest.raises(DatasetError, match=match):
        read_ucf101(ucf + "/UCF-101", "train")


def test_ucf101_may_keep_missing_videos(ucf, tmp_path):
    (tmp_path / "UCF-101/YoYo/v_YoYo_g08_c01.avi").unlink()
    assert len(read_ucf101(ucf + "/UCF-101", "train", missing="keep")) == 2


@pytest.fixture
def hmdb(tmp_path):
    return write(
        tmp_path,
        {
            "testTrainMulti_7030_splits/run_test_split1.txt": ["a b (1).avi 1 ", "b.avi 2 ", "c.avi 0 "],
            "testTrainMulti_7030_splits/cartwheel_test_split1.txt": ["x.avi 1 ", "y.avi 2 "],
            "testTrainMulti_7030_splits/run_test_split2.txt": ["c.avi 1 "],
            "run/a b (1).avi": b"",
            "run/b.avi": b"",
            "run/c.avi": b"",
            "cartwheel/x.avi": b"",
            "cartwheel/y.avi": b"",
        },
    )


def test_hmdb51(hmdb):
    train = open_dataset("hmdb51", hmdb, "train", annotations="", val_fraction=0.0)
    assert train.class_names == ("cartwheel", "run")
    assert [r[:2] for r in rows(train)] == [("cartwheel/x.avi", "cartwheel"), ("run/a b (1).avi", "run")]
    assert [r.name for r in read_hmdb51(hmdb, "test1")] == ["cartwheel/y.avi", "run/b.avi"]
    assert [r.name for r in read_hmdb51(hmdb, "train2")] == ["run/c.avi"]
    with pytest.raises(ValueError, match="received split='train4'"):
        read_hmdb51(hmdb, "train4")
    with pytest.raises(DatasetError, match=r"holds \*_test_split3\.txt"):
        read_hmdb51(hmdb, "train3")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a.avi 3", r"run_test_split1\.txt:1: a line must be 'FILE 0', 'FILE 1' or 'FILE 2', received 'a\.avi 3'"),
        ("a.avi", r":1: a line must be"),
        ("../a.avi 1", r":1: a file must be named without a folder, received '\.\./a\.avi'"),
        ("none.avi 1", r":1: a listed video must exist under .*, received 'run/none\.avi'"),
    ],
)
def test_hmdb51_lists_are_checked(line, match, hmdb, tmp_path):
    write(tmp_path, {"testTrainMulti_7030_splits/run_test_split1.txt": [line]})
    with pytest.raises(DatasetError, match=match):
        read_hmdb51(hmdb, "train")


@pytest.mark.parametrize("read", [read_kinetics, read_srtg_csv, read_ucf101, read_hmdb51])
def test_fixed_splits_take_no_fraction(read, tmp_path):
    with pytest.raises(ValueError, match=r"val_fraction must not be given for '\w+' data, received val_fraction=0\.2"):
        read(str(tmp_path), "train", val_fraction=0.2)
