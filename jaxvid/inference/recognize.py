"""From a run folder and the names of files to what the network says about each of them.

The videos go through the pipeline of an evaluation (:mod:`jaxvid.data.pipeline`, :mod:`jaxvid.evaluation`), cut into
views and batches by the run's own config, so that a prediction is what ``jaxvid eval`` says about the same video.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvid import evaluation, paths
from jaxvid.data.clips import EvalClips, clip_rng, view_frames
from jaxvid.data.decode import VideoReader
from jaxvid.data.pipeline import Batches, eval_batches
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord
from jaxvid.data.sources.listing import holds_flow
from jaxvid.data.workers import num_threads
from jaxvid.inference.recognition import Recognition
from jaxvid.inference.videos import find_videos
from jaxvid.train import assemble, sharding
from jaxvid.train.run import Run, load_run

_OF_A_DATA_SET = (
    "data.root",
    "data.annotations",
    "data.missing",
    "data.eval_split",
    "data.val_fraction",
    "data.max_bad_fraction",
)
"""Fields that an evaluation may change and that mean nothing where the videos are named."""


def load_recognizer(
    checkpoint: str | Path, overrides: Mapping[str, Any] | None = None, *, best: bool = False
) -> Recognizer:
    """Makes a recognizer of a run: one that was trained here, or ``jaxvid convert`` made.

    Args:
      checkpoint: the run folder, its ``checkpoints`` folder, or one step in it.
      overrides: dotted config fields, as ``{"eval.num_clips": 10, "eval.num_crops": 3}``.
      best: the checkpoint with the highest ``eval/top1`` instead of the newest.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: a field may not be changed, or says nothing about videos that are named.
    """
    overrides = dict(overrides or {})
    for name in overrides:
        if name in _OF_A_DATA_SET:
            raise ValueError(
                f"{name} says where a data set's videos are, and must not be given with videos that are named, "
                f"received {name}={overrides[name]!r}."
            )
    paths.enable_compilation_cache()
    return Recognizer(load_run(checkpoint, overrides, best=best))


class Recognizer:
    """A network with its weights on the devices, which says what is seen in videos.

    Args:
      run: from :func:`jaxvid.train.load_run`.

    Raises:
      ValueError: the run's mesh does not fit the devices, there are several processes, or the network is an oracle.

    Example::

        recognizer = load_recognizer("runs/i3d_k400", {"eval.num_clips": 10})
        for found in recognizer.predict("videos"):
            if found.error:
                print(found.error)
            else:
                print(found.path, found.top(1)[0].name, found.top(1)[0].probability)
    """

    def __init__(self, run: Run):
        if jax.process_count() > 1:
            raise ValueError(f"videos that are named are predicted by 1 process, received {jax.process_count()}.")
        if run.config.model.u2s.oracle:
            raise ValueError(
                "model.u2s.oracle must be false for videos without labels, received model.u2s.oracle=True."
            )
        self.run = run
        self._mesh = sharding.make_mesh(run.config.train.mesh)
        self._variables = sharding.replicate(run.variables, self._mesh)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ``K`` classes, in the order of the logits."""
        return self.run.class_names

    def predict(
        self,
        videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Recognition]:
        """What the network says about each video, one after the other.

        Args:
          videos: files and folders, see :func:`jaxvid.inference.videos.find_videos`, which looks for them at once.
          progress: called after each batch with the number of videos that are done, and of all.

        Returns:
          An iterator over the videos in their order. They are decoded, batch by batch, while it is read.

        Raises:
          FileNotFoundError, ValueError: as :func:`jaxvid.inference.videos.find_videos` says; or videos are not of the
            modality that the run was trained on. A video that cannot be decoded raises nothing: its
            :attr:`Recognition.error` says why.
        """
        files = find_videos(videos)
        self._check_modality(files)
        return self._recognitions(files, progress)

    def _check_modality(self, files: tuple[str, ...]) -> None:
        """A network of optical flow would say something about colours too, and nobody would notice."""
        modality = self.run.config.data.modality
        for folder, file in {Path(file).absolute().parent: file for file in reversed(files)}.items():
            received = "flow" if any(map(holds_flow, (folder, *folder.parents))) else "rgb"
            if received != modality:
                raise ValueError(
                    f"videos must be of the modality that the run was trained on, data.modality={modality!r}, received "
                    f"{file!r}, which is {received!r} ('jaxvid data flow' makes folders of flow)."
                )

    def _recognitions(
        self, files: tuple[str, ...], progress: Callable[[int, int], None] | None
    ) -> Iterator[Recognition]:
        clips, reasons, done = assemble.eval_clips(self.run.config), Reasons(), 0
        with (
            self._batches(files, clips, reasons) as batches,
            ThreadPoolExecutor(num_threads(0), "jaxvid-predict") as pool,
        ):
            for part in evaluation.predict_batches(
                self.run.apply.with_side(),  # an evaluation's program, to the last bit
                self._variables,
                batches,
                num_classes=len(self.class_names),
                put=lambda batch: sharding.put(batch, self._mesh),
            ):
                yield from pool.map(
                    lambda row, part=part: self._recognition(files, clips, reasons, part, row), range(len(part))
                )
                done += len(part)
                if progress is not None:
                    progress(done, len(files))

    def _batches(self, files: tuple[str, ...], clips: EvalClips, reasons: Reasons) -> Batches:
        # What is in a video is what is asked for: label 0 stands where a data set has one, and nothing reads it.
        records = [VideoRecord(id, 0, file, file) for id, file in enumerate(files)]
        config = self.run.config
        # That of an evaluation, however few the videos are: the last bits of logits depend on it.
        batch_size = sharding.fitting_batch_size(config.eval.batch_size, self._mesh)
        return eval_batches(
            VideoDataset("videos", "predict", self.class_names, records),
            clips,
            batch_size=batch_size,
            # A single batch is decoded by threads: a process would only cost its start.
            num_workers=config.data.num_workers if len(files) > batch_size else 0,
            quarantine=reasons,
            seed=config.train.seed,
        )

    def _recognition(
        self, files: tuple[str, ...], clips: EvalClips, reasons: Reasons, part: evaluation.Predictions, row: int
    ) -> Recognition:
        id = int(part.ids[row])
        if not part.decoded[row]:
            return Recognition.failed(files[id], self.class_names, reasons.of[id])
        try:
            with VideoReader(files[id]) as reader:
                rng = clip_rng(self.run.config.train.seed, 0, id)
                shown = np.unique(view_frames(clips, reader.num_frames, rng))
                first, last = reader.times[shown[[0, -1]]].tolist()
                length = {"num_frames": reader.num_frames, "duration": reader.duration}
        except BadVideoError as error:  # it was sound when its clip was decoded, and has changed since
            return Recognition.failed(files[id], self.class_names, str(error))
        return Recognition(
            files[id],
            self.class_names,
            logits=part.logits[row],
            scores=part.scores[row],
            num_seen=len(shown),
            seen=(first, last),
            **length,
        )


class Reasons(Quarantine):
    """Why which video could not be decoded, by its id; whoever asked is told, and no file or log besides."""

    def __init__(self):
        super().__init__(None, max_bad_fraction=1.0)
        self.of: dict[int, str] = {}

    def add(self, path: str, error: str, split: str, id: int, frame: int | None = None) -> bool:
        """Keeps the reason; never news for the log."""
        self.of[id] = error
        return False
