"""What the commands of ``jaxvid data`` do; see :mod:`jaxvid.cli.commands`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jaxvid.cli.usage import UsageError


def make_data(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Makes an embedded data set."""
    from jaxvid.data.datasets import digits, motion
    from jaxvid.progress import RichProgress

    if options.name == "digits":
        if options.tfds or options.num_workers is not None:
            raise UsageError("--tfds and --num_workers belong to the sets of videos, received them with digits.")
        print(f"images: {digits.make_digits(options.root)}")
        return 0
    with RichProgress() as progress:
        root = motion.make_motion(
            options.root, name=options.name, num_workers=options.num_workers, progress=progress.making()
        )
        print(f"videos: {root}")
        if options.tfds:
            print(f"TFDS: {motion.make_tfds(root, name=options.name)}")
    return 0


def check_data(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Decodes every video; status 1 where one is broken."""
    from jaxvid import config as config_lib
    from jaxvid.data import check
    from jaxvid.progress import RichProgress
    from jaxvid.train import assemble

    config = config_lib.load(options.config, overrides)
    splits = dict.fromkeys((config.data.train_split, config.data.eval_split))
    datasets = [assemble.open_dataset(config, split) for split in splits]
    with RichProgress() as progress:
        report = check.check_dataset(datasets, num_workers=options.num_workers, progress=progress.checking())
    print(json.dumps(report.to_json(), indent=2) if options.json else report.to_text())
    return 1 if report.broken else 0


def make_flow(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Computes the optical flow of a data set; status 1 where there is a video without."""
    from jaxvid import config as config_lib
    from jaxvid.data.flow import FlowSettings
    from jaxvid.data.flow_files import make_flow
    from jaxvid.progress import RichProgress
    from jaxvid.train import assemble

    config = config_lib.load(options.config, overrides)
    if config.data.modality == "flow":
        raise UsageError("data.modality must be 'rgb' with 'jaxvid data flow', which reads the RGB videos.")
    settings = FlowSettings(options.bound, options.short_side)
    with RichProgress() as progress:
        datasets = [assemble.open_dataset(config, split, progress) for split in assemble.split_names(config)]
        report = make_flow(
            datasets,
            options.output,
            settings,
            annotations=config.data.annotations,
            num_workers=options.num_workers,
            progress=progress.counting("flow"),
        )
    print(json.dumps(report.to_json(), indent=2) if options.json else report.to_text())
    if not options.json:
        print(f"flow: {report.output}")
        print(f"next: jaxvid train with --config.data.root={report.output} --config.data.modality=flow")
    return 1 if report.broken else 0


def browse_data(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Draws clips."""
    from jaxvid import config as config_lib
    from jaxvid.data import browse
    from jaxvid.train import assemble

    config = config_lib.load(options.config, overrides)
    dataset = assemble.open_dataset(config, config.data.train_split)
    clips = assemble.train_clips(config, dataset.class_names)
    browse.contact_sheet(dataset, clips, Path(options.output), rows=options.rows, seed=options.seed)
    print(f"picture: {options.output}")
    return 0
