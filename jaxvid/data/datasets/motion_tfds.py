"""`motion` and `motion_fine` for TensorFlow Datasets: the videos as bytes in ArrayRecord files, no TensorFlow anywhere.

The encoded files themselves are the feature. ``tfds.features.Video`` would need TensorFlow, and frames would take ten
times the space.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxvid.data.datasets.motion import SPLITS, motion
from jaxvid.data.datasets.motion_courses import NUM_FRAMES
from jaxvid.data.datasets.motion_files import CLASS_TABLES
from jaxvid.data.datasets.motion_regions import read_regions


class Motion(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Twelve classes of video clips that differ in motion only.

    Args:
      root: folder of a finished data set `motion`.
      **kwargs: ``data_dir`` among them, see ``tfds.core.DatasetBuilder``.
    """

    name = "motion"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012  (the base class's way)
    code_path = epath.Path(__file__)
    """TFDS 4.9's own way of finding this imports a package that it does not require (importlib_resources)."""

    def __init__(self, *, root: str | Path, **kwargs: Any):
        self._root = Path(root)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video clips of an object before a background, both of random appearance. The twelve classes "
            "differ in the order of the frames only; the splits share no appearance.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Text(doc="The encoded file, MP4 with H.264."),
                    "label": tfds.features.ClassLabel(names=CLASS_TABLES[self.name].class_names),
                    "name": tfds.features.Text(doc="Path of the file in the folder form of this data set."),
                    "boxes": tfds.features.Tensor(
                        shape=(NUM_FRAMES, 4),
                        dtype=np.float32,
                        doc="The region of the action in every frame: left, top, right, bottom in pixels.",
                    ),
                }
            ),
            supervised_keys=("video", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        regions = read_regions(self._root, split)
        for record in motion(str(self._root), split, name=self.name, make=False):
            yield (
                record.name,
                {
                    "video": (self._root / record.name).read_bytes(),
                    "label": record.label,
                    "name": record.name,
                    "boxes": regions.boxes[regions.index(record.name)],
                },
            )


class MotionFine(Motion, skip_registration=True):
    """Six pairs of classes of video clips; the classes of a pair differ in a detail of the motion."""

    name = "motion_fine"


BUILDERS = {"motion": Motion, "motion_fine": MotionFine}


def build(name: str, root: Path, data_dir: Path) -> Path:
    """Writes the TFDS form of a finished data set; one that is there is replaced.

    Returns:
      The folder of the version, ``DATA_DIR/NAME/1.0.0``.
    """
    make = BUILDERS[name]
    builder = make(root=root, data_dir=data_dir)
    shutil.rmtree(builder.data_dir, ignore_errors=True)  # TFDS would take any that is there for the right one
    with _quiet():
        builder = make(root=root, data_dir=data_dir)
        builder.download_and_prepare(
            download_dir=str(data_dir / "downloads"),
            download_config=tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP),
        )
    shutil.rmtree(data_dir / "downloads", ignore_errors=True)
    return Path(builder.data_dir)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and the lines that TFDS prints: that is for the command line to do."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
