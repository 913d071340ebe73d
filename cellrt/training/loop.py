"""Run a recipe: data, network, checkpoints, and going on after an interruption."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from cellrt.claim import claim
from cellrt.files import check_outputs, make_folder
from cellrt.runtime.machine.hardware import cpu_has_bf16
from cellrt.training.card import fitted_before
from cellrt.training.checkpoint import load_checkpoint
from cellrt.training.data.echo import Echo
from cellrt.training.data.patches import PatchDataset, StepSampler
from cellrt.training.data.stacks import Stack, load_training_stacks, load_validation_stacks
from cellrt.training.initial_weights import initial_model, initial_network
from cellrt.training.lightning_module import TrainingModule
from cellrt.training.recipe import Recipe
from cellrt.training.validation import ScoreCallback

LAST = "last.ckpt"

Report = Callable[[str], None]


def train(
    recipe: Recipe,
    output: Path,
    *,
    fresh: bool = False,
    report: Report = print,
) -> Path:
    """Train a recipe's network; with a checkpoint in `output`, go on from it.

    Parameters
    ----------
    recipe : Recipe
    output : Path
        Folder for checkpoints and logs.
    fresh : bool
        Start over even when there is a checkpoint.
    report : callable
        Called with one line of progress at a time.

    Returns
    -------
    Path
        The last checkpoint.

    Raises
    ------
    InputError
        When the recipe's data or the folder cannot be used, or another run writes there.
    KeyboardInterrupt
        When interrupted; the checkpoint is written first.
    """
    checkpoint = output / LAST
    check_outputs({"checkpoint": checkpoint}, overwrite=True)
    make_folder(output)
    with claim([checkpoint]):
        _train(recipe, checkpoint, checkpoint.exists() and not fresh, report)
    return checkpoint


def _train(recipe: Recipe, checkpoint: Path, resume: bool, report: Report) -> None:
    table = recipe.optim
    if table.threads:
        torch.set_num_threads(table.threads)
    L.seed_everything(table.seed, verbose=False)

    report("loading stacks")
    training = load_training_stacks(recipe)
    validation = load_validation_stacks(recipe)
    voxels = sum(stack.image.size for stack in training)
    report(
        f"{len(training)} training stacks ({voxels / 1e6:.0f} million voxels), "
        f"{len(validation)} validation stacks"
    )
    recipe = _fitted(recipe, training, checkpoint if resume else None, report)
    module = TrainingModule(recipe)
    if recipe.init and not resume:
        module.start_from(initial_network(recipe, training))
        report(f"weights start from {recipe.init}")
    if torch.cuda.is_available():
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    else:
        # Without AMX planar networks learn slower in bf16: 0.39 to 0.31 s a step on two cores.
        usable = cpu_has_bf16(matrices=module.net.planar) and not meets_bf16_fault(
            table.patch_voxels[0], module.net.size_multiple
        )
        precision = "bf16-mixed" if usable else "32-true"
        module = module.to(memory_format=torch.channels_last_3d)
    trainer = L.Trainer(
        accelerator="auto",
        devices="auto",
        precision=precision,
        max_epochs=-1,
        max_steps=table.max_steps if table.max_steps is not None else -1,
        gradient_clip_val=table.gradient_clip,
        use_distributed_sampler=False,
        logger=CSVLogger(checkpoint.parent, name="", version="log", flush_logs_every_n_steps=20),
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[
            ModelCheckpoint(
                checkpoint.parent,
                filename="last",
                save_top_k=1,
                train_time_interval=timedelta(minutes=table.checkpoint_minutes),
                enable_version_counter=False,
            ),
            KeepOnInterrupt(checkpoint),
            ProgressLines(report),
            ScoreCallback(validation, recipe, report),
        ],
    )
    first_step = _step_of(checkpoint) if resume else 0
    if resume:
        report(f"going on from step {first_step}")
    loader = _loader(recipe, training, first_step, trainer)
    with warnings.catch_warnings():
        # Workers are the recipe's choice; an endless data set cannot restore mid-epoch state.
        warnings.filterwarnings("ignore", message=".*(num_workers|mid-epoch|resumable).*")
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, loader, ckpt_path=str(checkpoint) if resume else None)
        except SystemExit as error:  # how Lightning ends a run on Ctrl-C and on SIGTERM
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
    trainer.save_checkpoint(checkpoint)


def _fitted(
    recipe: Recipe, stacks: Sequence[Stack], checkpoint: Path | None, report: Report
) -> Recipe:
    """Fill in what is found in the data before the network learns, or what it has learned with.

    Weights mean nothing without what was fitted for them.
    """
    if checkpoint is None and str(recipe.init).endswith(".ckpt"):
        checkpoint = recipe.folder / str(recipe.init)
    model = recipe.model
    if checkpoint is not None:
        trained = load_checkpoint(checkpoint)[1].model
        found = {key: getattr(trained, key, None) for key in model.fitted_keys}
        model = model.model_copy(update=found)
    elif recipe.init and model.fitted_keys:
        model = model.model_copy(update=fitted_before(initial_model(recipe).card))
    labels = (stack.labels for stack in stacks)
    model = model.fitted(labels, recipe.augment.zoom, recipe.optim.seed, report)
    return recipe.model_copy(update={"model": model})


class KeepOnInterrupt(Callback):  # type: ignore[misc]
    """Write a checkpoint when the run is interrupted (Ctrl-C, SIGTERM)."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save, but only what was interrupted: after a fault the weights may be broken."""
        if isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.global_step > 0:
            trainer.save_checkpoint(self.checkpoint)


class ProgressLines(Callback):  # type: ignore[misc]
    """Report loss, speed and progress every so many steps."""

    def __init__(self, report: Report, every: int = 20) -> None:
        self.report = report
        self.every = every
        self._sums: dict[str, float] = {}
        self._since = (0, 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note where this run starts, for the speed."""
        self._since = (trainer.global_step, pl_module.progress.seconds)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Add up losses and print their means."""
        for key, value in trainer.callback_metrics.items():
            if key.startswith("train_") and key != "train_loss":
                part = key.removeprefix("train_")
                self._sums[part] = self._sums.get(part, 0.0) + float(value) / self.every
        step = trainer.global_step
        if step % self.every:
            return
        seconds = pl_module.progress.seconds
        before, then = self._since
        speed = (step - before) / max(1e-9, seconds - then)
        self._since = (step, seconds)
        share = pl_module.progress.share(step)
        parts = "  ".join(f"{part} {mean:.4f}" for part, mean in self._sums.items())
        self.report(
            f"step {step}  {100 * share:5.1f} %  {parts}  {speed:.2f} steps/s"
            f"  {seconds / 60:.1f} min"
        )
        self._sums.clear()


def _loader(
    recipe: Recipe, stacks: list[Any], first_step: int, trainer: L.Trainer
) -> Iterable[Any]:
    table = recipe.optim
    rank, processes = trainer.global_rank, trainer.world_size
    loader = DataLoader(
        PatchDataset(stacks, recipe),
        batch_size=table.batch,
        sampler=StepSampler(first_step // table.uses, table.batch, rank, processes),
        num_workers=table.workers,
        persistent_workers=table.workers > 0,
    )
    return Echo(loader, table.uses, (table.seed, first_step, rank))


def _step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=False)["global_step"])


def meets_bf16_fault(depth: int, size_multiple: int) -> bool:
    """Whether some layer sees features of two planes, for a patch of ``depth`` planes.

    The bf16 kernel of PyTorch 2.13 for the gradient of a 3x3x3 convolution's weights reads memory
    that nobody wrote there, on CPUs with AVX-512 BF16: not a number, or any number. Depths of 1,
    3 and more and all heights and widths were compared with fp32 and are right.
    """
    stride = 1
    while stride <= size_multiple:
        if -(-depth // stride) == 2:
            return True
        stride *= 2
    return False
