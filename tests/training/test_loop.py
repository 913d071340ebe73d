"""Training end to end on a few tiny simulated balls."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from cellrt.errors import InputError  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.loop import train  # noqa: E402
from cellrt.training.recipe import Recipe, load_recipe  # noqa: E402

RECIPE = """
name = "tiny"
kind = "nuclei"
{init}
[model]
widths = [4, 8]
nominal_diameter_voxels = 8
[optim]
patch_voxels = [16, 16, 16]
batch = 2
max_steps = {steps}
score_stacks = 0
learning_rate = {rate}
warmup = 0.0
[targets]
margin_voxels = 2
{extra}
[[data]]
name = "balls"
images = "image.tif"
labels = "labels.tif"
"""


def write_recipe(
    folder: Path, steps: int, *, init: str = "", extra: str = "", rate=0.002
) -> Recipe:
    labels = np.zeros((24, 24, 24), np.int32)
    grid = np.indices(labels.shape)
    for index, centre in enumerate(np.ndindex(2, 2, 2)):
        middle = np.array(centre) * 12 + 6
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, middle, strict=True)))
        labels[distance <= 4] = index + 1
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    image = np.clip(100 + 200 * (labels > 0) + noise, 0, None)
    tifffile.imwrite(folder / "image.tif", image.astype(np.uint16))
    tifffile.imwrite(folder / "labels.tif", labels)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps, init=init, extra=extra, rate=rate))
    return load_recipe(path)


def run(recipe: Recipe, output: Path, **options: bool) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return train(recipe, output, report=lines.append, **options), lines


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


def test_a_stopped_run_goes_on_at_its_step_and_fresh_starts_over(tmp_path: Path) -> None:
    checkpoint, _ = run(write_recipe(tmp_path, 3), tmp_path / "run")
    assert step_of(checkpoint) == 3
    again, lines = run(write_recipe(tmp_path, 5), tmp_path / "run")
    assert "going on from step 3" in lines
    assert step_of(again) == 5
    fresh, lines = run(write_recipe(tmp_path, 2), tmp_path / "run", fresh=True)
    assert step_of(fresh) == 2
    assert not any("going on" in line for line in lines)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    from cellrt.training.lightning_module import TrainingModule

    original = TrainingModule.training_step

    def interrupted(self: TrainingModule, batch: object, batch_idx: int) -> object:
        if self.global_step == 4:
            signal.raise_signal(signal_number)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)
    recipe = write_recipe(tmp_path, 8)
    # Python ignores Ctrl-C when it is started in the background, as test runners may be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    stopped = step_of(tmp_path / "run" / "last.ckpt")
    assert stopped in (4, 5)  # SIGTERM lets the step finish
    checkpoint, lines = run(recipe, tmp_path / "run")
    assert f"going on from step {stopped}" in lines
    assert step_of(checkpoint) == 8


def test_interrupted_equals_uninterrupted(tmp_path: Path) -> None:
    """Patches depend on the step alone, so a resumed run sees what it would have seen."""
    whole, _ = run(write_recipe(tmp_path, 6), tmp_path / "whole")
    from cellrt.training.data.patches import PatchDataset, StepSampler
    from cellrt.training.data.stacks import load_training_stacks

    recipe = write_recipe(tmp_path, 6)
    data = PatchDataset(load_training_stacks(recipe), recipe)
    first = iter(StepSampler(0, 2))
    skipped = [next(first) for _ in range(6)][4:]
    resumed = iter(StepSampler(2, 2))
    assert skipped == [next(resumed), next(resumed)]
    for index in skipped:
        for a, b in zip(data[index], data[index], strict=True):
            assert torch.equal(a, b)
    assert step_of(whole) == 6


def test_processes_see_different_items() -> None:
    from cellrt.training.data.patches import StepSampler

    seen = []
    for rank in range(2):
        items = iter(StepSampler(3, 2, rank, 2))
        seen.append([next(items) for _ in range(4)])
    assert seen == [[12, 13, 16, 17], [14, 15, 18, 19]]


def test_one_batch_can_be_learnt_by_heart(tmp_path: Path) -> None:
    from cellrt.models.cellpose3d.network import Cellpose3D
    from cellrt.models.cellpose3d.targets import cellpose3d_loss
    from cellrt.training.data.patches import PatchDataset
    from cellrt.training.data.stacks import load_training_stacks

    torch.manual_seed(0)
    recipe = write_recipe(tmp_path, 1)
    data = PatchDataset(load_training_stacks(recipe), recipe, augmented=False)
    image, targets, labels = (torch.stack(t) for t in zip(data[0], data[1], strict=True))
    net = Cellpose3D((8, 16))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = cellpose3d_loss(net.logits(image), targets, labels, flow_weight=1.0)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]


def test_a_checkpoint_starts_another_run_and_other_widths_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = run(write_recipe(tmp_path, 4), tmp_path / "run")
    learnt, _ = load_checkpoint(checkpoint)
    init = 'init = "run/last.ckpt"'
    # One step with a vanishing rate leaves the weights where they were.
    tuned, lines = run(write_recipe(tmp_path, 1, init=init, rate=1e-12), tmp_path / "tuned")
    assert "weights start from run/last.ckpt" in lines
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        before, after = learnt(image), load_checkpoint(tuned)[0](image)
    assert (before - after).abs().max() < 0.15  # batch norm moved by one batch at most
    recipe = write_recipe(tmp_path, 1, init=init)
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"widths": (8, 8)})})
    with pytest.raises(InputError, match="widths"):
        run(other, tmp_path / "other")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "y.ckpt")


@pytest.mark.parametrize(
    ("depth", "multiple", "expected"),
    [(48, 8, False), (12, 8, True), (16, 8, True), (24, 8, False), (8, 8, True), (8, 2, False)],
)
def test_patches_whose_gradients_bf16_gets_wrong_are_known(
    depth: int, multiple: int, expected: bool
) -> None:
    from cellrt.training.loop import meets_bf16_fault

    assert meets_bf16_fault(depth, multiple) is expected
