"""The optical flow of a data set: a flow video at the same relative place for every video, whatever happens meanwhile.

A folder of flow is read by the reader of its RGB videos, since names, folders and annotation files are the same::

    DIR/flow.json            how the flow was computed; one folder holds flow of one kind
    DIR/quarantine.jsonl     videos of which there is no flow, once each, where there are any
    DIR/train/run/a.mp4      the flow of ROOT/train/run/a.mp4, whatever its suffix says (jaxvid.data.flow)
    DIR/labels/x.csv         copies of the annotation files that lie under ROOT

A flow video is complete or absent. Where an RGB video cannot be decoded an empty file lies in its place, so that the
splits keep their size and their videos: an empty file cannot be decoded either. It is tried again in the next run.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jaxvid.data.check import BrokenVideo
from jaxvid.data.flow import FlowSettings, is_flow_of, require_package, write_flow
from jaxvid.data.parallel import map_unordered
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord
from jaxvid.data.sources import hmdb51, ucf101
from jaxvid.data.sources.listing import FLOW_RECORD, QUARANTINE, is_image
from jaxvid.data.workers import WorkerDiedError
from jaxvid.files import make_output_folder, only_one, replacing, write_bytes, write_text

_LOG = logging.getLogger(__name__)
_CSV = ("*.csv", "labels/*.csv", "annotations/*.csv")
_BESIDE = {
    "hmdb51": ("*_test_split[123].txt", f"{hmdb51.FOLDER}/*.txt", f"../{hmdb51.FOLDER}/*.txt"),
    "kinetics": _CSV,
    "srtg_csv": _CSV,
    "ucf101": ("*.txt", f"{ucf101.FOLDER}/*.txt", f"../{ucf101.FOLDER}/*.txt"),
}
"""Where a reader looks for its annotation files, from ROOT. Those of an embedded set are NAME.json and its regions."""


@dataclass(frozen=True)
class FlowJob:
    """One flow video to make.

    Attributes:
      video: path of the RGB video.
      path: of the flow video.
      settings: of the flow.
    """

    video: str
    path: str
    settings: FlowSettings


@dataclass(frozen=True)
class FlowReport:
    """What :func:`make_flow` did.

    Attributes:
      output: the folder of flow.
      num_videos: files, each counted once whatever splits and stretches it is in.
      num_made: those whose flow was computed.
      num_kept: those whose flow was there.
      broken: the others, and why there is no flow of them.
    """

    output: str
    num_videos: int
    num_made: int
    num_kept: int
    broken: tuple[BrokenVideo, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-able values."""
        return asdict(self)

    def to_text(self) -> str:
        """The report for people: what was done, and a line for each video without flow."""
        done = f"{self.num_videos} videos: flow of {self.num_made} made, of {self.num_kept} there already"
        lines = [f"{b.split}: {b.name}: {b.error}" for b in self.broken]
        return "\n".join([f"{done}, of {len(lines)} impossible{':' * bool(lines)}", *(f"  {line}" for line in lines)])


def make_flow(
    datasets: Sequence[VideoDataset],
    output: str | os.PathLike[str],
    settings: FlowSettings | None = None,
    *,
    annotations: str = "",
    num_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlowReport:
    """Computes the flow of every video of a data set, or of those that are left of an interrupted run.

    The files follow from the videos and the settings alone, not from the number of processes. Finished ones are opened
    and compared in length, times and size with their RGB videos, and kept.

    Args:
      datasets: splits of one data set.
      output: the folder of flow: absent, empty, or one that was begun with the same settings and data set.
      settings: of the flow.
      annotations: what the data set was opened with; copied where it lies under the root.
      num_workers: processes; ``None``: one for each core; 0: none, it is done here.
      progress: called with (videos that are done, all videos).

    Returns:
      The report. A video that cannot be decoded, or that has one frame, is part of it, never an exception.

    Raises:
      ValueError: the data set holds images or no files, ``output`` does not fit, or another process writes there.
      ImportError: scikit-image is not installed.
    """
    version = require_package()
    settings = settings or FlowSettings()
    records = _files(datasets)
    root = _root(next(iter(records.values()))[1])
    folder = Path(output).expanduser().absolute()
    _check_apart(root, folder)
    _refuse_foreign(folder)
    make_output_folder("output", folder)
    in_use = f"output must be written by one process at a time, received {folder}, in use."
    with only_one(folder / ".lock", in_use):
        _begin(folder, datasets[0].name, settings, version)
        _copy_annotations(datasets[0].name, root, folder, annotations)
        return _make_files(records, folder, settings, num_workers, progress)


def make_flow_file(job: FlowJob) -> tuple[str, str, int | None]:
    """Makes one flow video, or finds that it is there: as ``make`` does, one that is older than its video is made anew.

    Returns:
      ``"made"``, ``"kept"`` or ``"broken"``; and of a broken one the reason, and the frame where that is known.
    """
    path = Path(job.path)
    try:
        newer = path.is_file() and os.path.getmtime(job.path) >= os.path.getmtime(job.video)
        if newer and is_flow_of(job.path, job.video, job.settings):
            return "kept", "", None
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            write_flow(job.video, job.settings, file)
    except BadVideoError as error:
        if os.path.lexists(job.video) and not path.exists():
            write_bytes(path, b"")
        return "broken", str(error), error.frame
    return "made", "", None


def _files(datasets: Sequence[VideoDataset]) -> dict[str, tuple[str, VideoRecord]]:
    """A split and a record for each file, by its relative path; stretches of one file are one."""
    found: dict[str, tuple[str, VideoRecord]] = {}
    for dataset in datasets:
        for record in dataset:
            if isinstance(record.video, bytes):
                raise ValueError(
                    f"flow is made of videos that are files, received {dataset.name!r} data, which are not."
                )
            if is_image(record.name):
                raise ValueError(f"flow is made of videos, received {record.name}: an image has no flow.")
            found.setdefault(record.name, (dataset.split, record))
    if not found:
        raise ValueError("flow is made of at least 1 video, received 0.")
    return found


def _root(record: VideoRecord) -> Path:
    """The folder under which a record's file lies at its name."""
    video = str(record.video)
    root = video.removesuffix(record.name)
    if root == video or (root and not root.endswith(os.sep)):
        raise ValueError(f"a video must lie at its name under the root, received {video}, whose name is {record.name}.")
    return Path(root)


def _check_apart(root: Path, folder: Path) -> None:
    videos, flow = root.resolve(), folder.resolve()
    if videos == flow or videos in flow.parents or flow in videos.parents:
        raise ValueError(f"output must lie beside the data set and not in or around it, received {flow} with {videos}.")


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and not (folder / FLOW_RECORD).exists():
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if others:
            raise ValueError(
                f"output must be absent, empty or a folder of flow, received {folder}, which holds {others[0]}."
            )


def _begin(folder: Path, name: str, settings: FlowSettings, version: str) -> None:
    """Says in the folder what it is, or finds that it is the same."""
    wanted = {"data": name, **settings.to_json()}
    file = folder / FLOW_RECORD
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            found.keys()
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file} must say how the flow beside it was computed, and cannot be read.") from error
        for field, value in wanted.items():
            if found.get(field) != value:
                raise ValueError(
                    f"output must hold flow of one kind, received {folder}, which was made with "
                    f"{field}={found.get(field)!r}, and {field}={value!r} now."
                )
        if found.get("scikit-image") != version:
            begun = found.get("scikit-image")
            _LOG.warning("The flow in %s was begun with scikit-image %s and goes on with %s.", folder, begun, version)
    else:
        write_text(file, json.dumps(wanted | {"scikit-image": version}, indent=2) + "\n")


def _copy_annotations(name: str, root: Path, folder: Path, annotations: str) -> None:
    """Copies what the reader reads besides videos, where that lies under the root, or split files beside it."""
    patterns = [*_BESIDE.get(name, (f"{name}.json", "*/regions.npz"))]
    given = PurePosixPath(glob.escape(annotations))
    if annotations and not given.is_absolute() and ".." not in given.parts:
        patterns.append(str(given.parent / "*.csv" if given.suffix == ".csv" else given / "*.txt"))
    for pattern in patterns:
        start = root.parent if pattern.startswith("../") else root
        for file in start.glob(pattern.removeprefix("../")):
            target = folder / file.relative_to(start)
            content = file.read_bytes()
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(target, content)


def _make_files(
    records: dict[str, tuple[str, VideoRecord]],
    folder: Path,
    settings: FlowSettings,
    num_workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> FlowReport:
    jobs = [FlowJob(str(record.video), str(folder / name), settings) for name, (_, record) in records.items()]
    for parent in {Path(job.path).parent for job in jobs}:
        for part in parent.glob(".*.part"):  # what a killed run left
            part.unlink(missing_ok=True)
    quarantine = Quarantine(folder / QUARANTINE, max_bad_fraction=1.0)
    found = list(records.values())
    counts, broken = {"made": 0, "kept": 0}, {}
    for done, (index, result) in enumerate(map_unordered(make_flow_file, jobs, num_workers=num_workers), start=1):
        what, error, frame = ("broken", str(result), None) if isinstance(result, WorkerDiedError) else result
        if what == "broken":
            split, record = found[index]
            broken[index] = BrokenVideo(split, record.name, error, frame)
            quarantine.add(str(record.video), error, split, record.id, frame)
        else:
            counts[what] += 1
        if progress is not None:
            progress(done, len(jobs))
    named = tuple(broken[index] for index in sorted(broken))
    return FlowReport(str(folder), len(jobs), counts["made"], counts["kept"], named)
