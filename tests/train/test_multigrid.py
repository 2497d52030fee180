"""Multigrid's grids and rates: the authors' numbers, cases by hand, and laws."""

import json
from pathlib import Path

import pytest

from jaxvid.train import multigrid
from jaxvid.train.multigrid import Grid

GOLDEN = Path(__file__).parents[1] / "golden"
SLOWFAST_8X8_R50 = (32, 224, (0, 94, 154, 196), 239)


def test_the_schedule_of_slowfast_8x8_r50_is_the_authors():
    golden = json.loads((GOLDEN / "multigrid_slowfast_official.json").read_text())
    schedule = multigrid.slowfast_schedule(*SLOWFAST_8X8_R50)
    phases = [
        [phase.stage, [phase.grid.batch_size, phase.grid.num_frames, phase.grid.crop_size], phase.end]
        for phase in schedule.phases
    ]
    assert phases == golden["schedule"]
    assert list(schedule.steps) == golden["steps"]
    assert schedule.rates == pytest.approx(golden["lrs"], rel=1e-12)
    assert schedule.num_epochs == golden["max_epoch"]


@pytest.mark.parametrize("case", json.loads((GOLDEN / "multigrid_srtg_shapes.json").read_text()).items())
def test_the_grids_of_the_srtg_repository_are_the_authors(case):
    name, golden = case
    grids = multigrid.srtg_grids(Grid(*map(int, name.split("x"))))
    ours = [[[grid.batch_size, grid.num_frames, grid.crop_size, grid.crop_size] for grid in row] for row in grids]
    assert ours == golden


def test_odd_sizes_are_made_even_at_the_end_only():
    """181 = floor(256 / sqrt 2) is halved to 90, not 182 to 91; and an odd base stays odd in between."""
    grids = multigrid.srtg_grids(Grid(3, 5, 255))
    assert grids[0] == (Grid(24, 1, 180), Grid(48, 1, 128), Grid(96, 1, 90))
    assert grids[3] == (Grid(3, 5, 256), Grid(6, 5, 180), Grid(12, 5, 128))


def test_a_schedule_by_hand():
    """One drop, long cycles only: batches 8, 4, 2, 1 share 15 epochs as 8, 4, 2, 1; 20 epochs become 30."""
    schedule = multigrid.slowfast_schedule(16, 224, (0, 15), 20, short_cycle=False)
    # 4 steps' worth instead of 15; 5 more epochs become 5 * 4 / 15 = 4/3; 16 1/3 in all are stretched to 30.
    stretch = 30 / (15 + 4 / 3)
    assert [phase.end for phase in schedule.phases] == [
        round(stretch * epochs) for epochs in (8, 12, 14, 15, 15 + 4 / 3)
    ]
    assert schedule.rates == pytest.approx((8, 4, 2, 1, 1, 0.1))
    assert schedule.steps == (0, 15, 22, 26, 28, (28 + 30) // 2)


def test_the_grid_and_the_rate_of_an_epoch():
    schedule = multigrid.slowfast_schedule(*SLOWFAST_8X8_R50)
    assert schedule.grid_of(72) == Grid(8, 8, 158)
    assert schedule.grid_of(73) == Grid(4, 16, 158)
    assert schedule.grid_of(1000) == Grid(1, 32, 224)
    assert [schedule.rate_of(epoch) for epoch in (0, 72, 73, 328, 342, 343)] == pytest.approx(
        [8, 8, 4, 0.01, 0.01, 0.001]
    )


def test_short_cycles_belong_to_the_default_crop():
    assert multigrid.slowfast_short_cycle(Grid(64, 32, 224), 224) == (
        Grid(256, 32, 112), Grid(128, 32, 158), Grid(64, 32, 224),
    )  # fmt: skip
    assert multigrid.slowfast_short_cycle(Grid(512, 8, 158), 224) == (
        Grid(1024, 8, 112), Grid(512, 8, 158), Grid(512, 8, 158),
    )  # fmt: skip


@pytest.mark.parametrize("base", [Grid(8, 16, 224), Grid(2, 64, 312), Grid(5, 13, 97)])
def test_no_grid_is_more_work_than_the_finest(base):
    """In pixels of a batch, but for rounding: one more row and column at most."""
    finest = base.batch_size * base.num_frames * (base.crop_size + 1) ** 2
    for row in multigrid.srtg_grids(base):
        for grid in row:
            assert grid.batch_size * grid.num_frames * (grid.crop_size - 1) ** 2 <= finest
            assert grid.crop_size % 2 == 0


@pytest.mark.parametrize("steps", [4, 7, 428])
def test_every_step_of_an_epoch_has_its_grid(steps):
    places = [multigrid.srtg_grid_of(step, steps) for step in range(steps)]
    longs = [long for long, _ in places]
    assert longs == sorted(longs)
    assert set(longs) == {0, 1, 2, 3}
    assert [short for _, short in places] == [step % 3 for step in range(steps)]


@pytest.mark.parametrize(
    ("num_videos", "batch_size", "steps"), [(240_000, 32, 428), (15 * 32, 32, 0), (3_570, 6, 32), (100_000, 64, 88)]
)
def test_steps_of_an_epoch(num_videos, batch_size, steps):
    """As the repository's loops count them; too few videos for four quarters are refused."""
    if steps:
        assert multigrid.srtg_steps_per_epoch(num_videos, batch_size) == steps
    else:
        with pytest.raises(ValueError, match=r"num_videos must fill at least four steps, received num_videos=480"):
            multigrid.srtg_steps_per_epoch(num_videos, batch_size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multigrid.slowfast_schedule(2, 224, (0, 1), 2), r"num_frames must be >= 4 .* num_frames=2"),
        (lambda: multigrid.slowfast_schedule(8, 224, (1, 2), 3), r"drops must be 0 and at least one more .*\(1, 2\)"),
        (lambda: multigrid.slowfast_schedule(8, 224, (0, 5), 5), r"drops must be .* below num_epochs=5"),
        (lambda: multigrid.slowfast_schedule(8, 224, (0, 5), 6, epoch_factor=0), r"epoch_factor and decay must be > 0"),
        (lambda: multigrid.srtg_grids(Grid(1, 3, 224)), r"base must have at least 4 frames .*num_frames=3"),
        (lambda: Grid(0, 4, 4), r"batch_size of a grid must be >= 1"),
        (lambda: multigrid.srtg_grid_of(12, 12), r"step must be in \[0, 12\)"),
        (lambda: multigrid.srtg_rate(4), r"long must be in \[0, 4\), received long=4"),
    ],
)
def test_what_is_impossible_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
