"""SGD with momentum until the mean training loss reaches a target, as in the paper's section 2.

Where a run stops decides lambda1: between losses 1e-2 and 1e-3 it falls several-fold. So once the running loss nears
the next threshold, the loss of the whole set is measured every quarter epoch, and the first state at or below each
threshold is kept.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbanalysis import checkpoints, networks
from hbanalysis.data import Samples
from hbanalysis.errors import StoreError, require
from hbanalysis.files import digest, write_atomically
from hbanalysis.training.config import TrainingConfig
from hbanalysis.training.evaluation import evaluate
from hbanalysis.training.pacing import Pacing, Perturb, Steady
from hbanalysis.training.record import EPOCH_END, RECORD, Record, load_record, stem

THRESHOLDS = (1e-1, 1e-2, 3e-3, 1e-3)
NEAR = 1.3  # the whole set is measured once the running loss is expected below NEAR times the next threshold
SAVE_EVERY = 60.0  # seconds between states kept for resuming
MICRO_BATCH = {"cpu": 256}
RESUME = "resume.safetensors"
STATE_NOTES = {"record", "place"}  # of a state to resume from

Progress = Callable[[float], None]
EpochEnd = Callable[[int, nn.Module], None]


def train(
    config: TrainingConfig,
    samples: Samples,
    folder: Path,
    progress: Progress | None = None,
    *,
    start: Path | None = None,
    perturb: Perturb | None = None,
    pacing: Pacing | None = None,
    epoch_end: EpochEnd | None = None,
) -> Record:
    r"""Train a network, or finish a training that was interrupted, and keep its checkpoints in ``folder``.

    With ``perturb`` each step minimises the loss at perturbed images, the robust training of the paper's section 3:

    .. math:: \min_\theta \sum_i \max_{\Delta x_i} \ell(\theta, x_i + \Delta x_i, y_i)

    with one attack in place of the inner maximum.

    Args:
        config: What to train.
        samples: The training set on the device that trains.
        folder: Receives ``loss-<threshold>.safetensors`` at each first crossing, ``epoch-end.safetensors`` at the end
            of the epoch in which the target was crossed, and ``training.json``.
        progress: Called after each step with the fraction done (a guess from the loss). An exception raised there
            stops the training; the state is kept and a later call goes on from the same step, bit for bit on the same
            machine, versions and number of threads.
        start: Checkpoint to start from instead of the initialisation.
        perturb: Changes the images of a step, ``(model, images, labels) -> images``; must leave the model as it was.
        pacing: Decides batch size, learning rate and perturbation of each epoch, in place of the configuration and of
            ``perturb``; the history of the record is its only memory.
        epoch_end: Called after each epoch with its number (1, 2, ...) and the model, which it must leave as it was.
            What it finds it keeps itself. After an interruption some epochs may be run again, with the same weights,
            and it is called again for these; for a training that is there already it is not called.

    Raises:
        StoreError: The folder cannot be written, or holds a damaged file.
        InputError: The samples do not fit the configuration; both ``perturb`` and ``pacing`` are given.
    """
    require(perturb is None or pacing is None, "A pacing says itself how images are changed; give no perturb= beside.")
    require(
        len(samples) == config.samples,
        f"The configuration asks for {config.samples} training samples; given {len(samples)}.",
    )
    done = folder / RECORD
    if done.is_file():
        (folder / RESUME).unlink(missing_ok=True)  # left by a process that was killed between its last two steps
        return load_record(folder)
    run = _Run(config, samples, folder, pacing or Steady(config, perturb), epoch_end)
    if start is not None:
        checkpoints.restore(run.model, start)
    run.resume()
    run.loop(progress or (lambda fraction: None))
    body = {"key": folder.name, **asdict(run.record)}
    body["sha256"] = digest(body, allow_nan=True)
    write_atomically(done, json.dumps(body, indent=1, sort_keys=True) + "\n")
    run.resume_path.unlink(missing_ok=True)
    return run.record


class _Run:
    """The state of one training: model, optimiser, place in the epoch, sums since the last mark."""

    def __init__(
        self,
        config: TrainingConfig,
        samples: Samples,
        folder: Path,
        pacing: Pacing,
        epoch_end: EpochEnd | None,
    ) -> None:
        self.config, self.samples, self.folder, self.pacing = config, samples, folder, pacing
        self.epoch_end = epoch_end
        self.device = samples.images.device
        self.model = config.network_on(self.device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.learning_rate, momentum=config.momentum)
        self.record = Record()
        self.epoch, self.step = 0, 0  # step counts within the epoch
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)  # summed loss since the mark
        self.count = 0
        self.epoch_total, self.epoch_count = 0.0, 0
        self.previous: float | None = None
        self.resume_path = folder / RESUME
        micro = config.ghost_batch if networks.has_batch_norm(self.model) else None
        if not networks.has_batch_norm(self.model):
            micro = MICRO_BATCH.get(self.device.type)
        self.micro = micro or config.batch_size
        target = config.target_loss
        self.thresholds = [] if target is None else [*(t for t in THRESHOLDS if t > target), target]

    def loop(self, progress: Progress) -> None:
        """Run epochs until the record has a status, and close the epoch in which it got it."""
        started = saved = time.monotonic()
        base = self.record.seconds
        while self.record.status == "running" or self.step:  # a state may be that of the step that diverged
            self._begin_epoch()
            while self.step < self.steps and self.record.status != "diverged":
                self._one_step()
                if self.step in self.marks:
                    self._mark()
                self.record.seconds = base + time.monotonic() - started
                try:
                    progress(self._fraction())
                except BaseException:
                    self.save()
                    raise
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
            self._end_epoch()
            if self.epoch_end is not None and self.record.status != "diverged":
                self.epoch_end(self.epoch, self.model)
        self.record.checkpoints[EPOCH_END] = self._keep(EPOCH_END)

    def _begin_epoch(self) -> None:
        generator = torch.Generator().manual_seed(1_000_003 * (self.config.seed + 1) + self.epoch)
        self.order = torch.randperm(self.config.samples, generator=generator).to(self.device)
        self.pace = self.pacing.pace(self.record.history)
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.learning_rate
        self.before = int(self.record.history[-1]["step"]) if self.record.history else 0  # steps of earlier epochs
        self.steps = math.ceil(self.config.samples / self.pace.batch_size)
        self.marks = {math.ceil(quarter * self.steps / 4): quarter for quarter in (1, 2, 3, 4)}

    def _one_step(self) -> None:
        size = self.pace.batch_size
        chosen = self.order[self.step * size : (self.step + 1) * size]
        self.optimizer.zero_grad(set_to_none=True)
        for part in chosen.split(self.micro):
            images, labels = self.samples.images[part], self.samples.labels[part]
            if self.pace.perturb is not None:
                images = self.pace.perturb(self.model, images, labels)
            loss = self._loss(images, labels)
            (loss / len(chosen)).backward()
            self.total += loss.detach()
        self.optimizer.step()
        self.count += len(chosen)
        self.step += 1

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        low = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext():
            logits = self.model(x)
        return F.cross_entropy(logits.float(), y, reduction="sum")

    def _mark(self) -> None:
        """At a quarter of an epoch: look at the running loss, and measure the whole set where a threshold is near."""
        total = self.total.item()
        running = total / self.count
        self.epoch_total, self.epoch_count = self.epoch_total + total, self.epoch_count + self.count
        self.total.zero_()
        self.count = 0
        if not running < 1e6:
            self.record.status = "diverged"
            return
        expected = running if self.previous is None else running * min(1.0, running / self.previous)
        self.previous = running
        done = len(self.record.crossings)
        if done < len(self.thresholds) and expected <= NEAR * self.thresholds[done]:
            self._measure()

    def _measure(self) -> None:
        loss, _ = evaluate(self.model, self.samples.images, self.samples.labels)
        while len(self.record.crossings) < len(self.thresholds):
            threshold = self.thresholds[len(self.record.crossings)]
            if loss > threshold:
                break
            name = stem(threshold)
            self.record.checkpoints[name] = self._keep(name)
            self.record.epochs = self.epoch + self.marks[self.step] / 4
            self.record.steps = self.before + self.step
            self.record.crossings.append(
                {
                    "threshold": threshold,
                    "epoch": self.record.epochs,
                    "step": self.record.steps,
                    "loss_train": loss,
                }
            )

    def _end_epoch(self) -> None:
        entry: dict[str, int | float] = {
            "epoch": self.epoch + 1,
            "step": self.before + self.step,
            "loss_running": self.epoch_total / max(self.epoch_count, 1),
            "learning_rate": self.pace.learning_rate,
        }
        seen = {} if self.record.status == "diverged" else self.pacing.observe(self.epoch + 1, self.model)
        self.record.history.append(entry | dict(self.pace.notes) | seen)
        self.epoch += 1
        self.epoch_total, self.epoch_count = 0.0, 0
        if self.record.status == "diverged" or not self.thresholds or len(self.record.crossings) < len(self.thresholds):
            self.record.epochs, self.record.steps = float(self.epoch), self.before + self.step
            if self.record.status == "running" and self.epoch >= self.config.max_epochs:
                self.record.status = "cap" if self.thresholds else "finished"
        else:
            self.record.status = "reached"
        self.step = 0

    def _fraction(self) -> float:
        """The loss falls about as 1 / t near the end, so target / loss is the share of the way."""
        by_loss = self.config.target_loss / self.previous if self.previous and self.config.target_loss else 0.0
        return min(0.99, max(by_loss, (self.epoch + self.step / self.steps) / self.config.max_epochs))

    def _keep(self, name: str) -> str:
        return checkpoints.save(self.folder / f"{name}.safetensors", self.model.state_dict())

    def save(self) -> None:
        """Keep everything that a later run needs to go on from this step."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for index, p in enumerate(self.model.parameters()):
            if "momentum_buffer" in self.optimizer.state[p]:
                tensors[f"momentum.{index}"] = self.optimizer.state[p]["momentum_buffer"]
        tensors["total"] = self.total
        place = {
            name: getattr(self, name) for name in ("epoch", "step", "count", "epoch_total", "epoch_count", "previous")
        }
        checkpoints.save(self.resume_path, tensors, {"record": asdict(self.record), "place": place}, sealed=True)

    def resume(self) -> None:
        """Go to where an interrupted run stopped, if there was one."""
        if not self.resume_path.is_file():
            return
        tensors, notes = checkpoints.load(self.resume_path)
        try:
            self._take(tensors, notes)
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise StoreError(
                f"{self.resume_path} is no state of this training: {error}. Delete it to train from the beginning."
            ) from error

    def _take(self, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        if set(notes) != STATE_NOTES:
            raise KeyError(f"its notes are {', '.join(sorted(notes)) or 'none'}")
        self.record = Record(**notes["record"])
        for name, value in notes["place"].items():
            setattr(self, name, value)
        prefix = "model."
        self.model.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        for index, p in enumerate(self.model.parameters()):
            if f"momentum.{index}" in tensors:
                # Adding to zeros keeps the memory layout of the parameter, and with it the order of the sums.
                buffer = torch.zeros_like(p).copy_(tensors[f"momentum.{index}"])
                self.optimizer.state[p]["momentum_buffer"] = buffer
        self.total.copy_(tensors["total"])
