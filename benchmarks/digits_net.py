"""The digits net: a small convolutional network whose dense Hessian can still be formed.

conv8 - BN - ReLU - maxpool - conv12 - BN - ReLU - avgpool - linear on the 1,797 8x8 digits of scikit-learn.
``python -m benchmarks.digits_net`` trains it again and writes the checkpoint that the benchmark reads.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

CHECKPOINT = Path(__file__).parent / "checkpoints" / "digits_net.safetensors"
EPOCHS = 8  # some 97 % right: a trained net whose curvature is not yet spread over few samples
BATCH = 64


def network() -> nn.Sequential:
    """Return the untrained network (1,486 parameters) in eval mode."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
    ).eval()


def data() -> tuple[Tensor, Tensor]:
    """Return all images ``(1797, 1, 8, 8)`` in [0, 1], float32, and their labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(digits.target, dtype=torch.int64)


def trained() -> nn.Sequential:
    """Return the network with the committed weights, in eval mode."""
    model = network()
    model.load_state_dict(load_file(CHECKPOINT))
    return model


def train(seed: int = 0) -> nn.Sequential:
    """Train by plain momentum SGD, deterministically on one thread."""
    torch.manual_seed(seed)
    model, (images, labels) = network().train(), data()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    return model.eval()


@torch.no_grad()
def quality(model: nn.Module) -> dict[str, float]:
    """Return the mean loss and the accuracy over all samples."""
    images, labels = data()
    outputs = model(images)
    return {
        "loss": float(cross_entropy(outputs, labels)),
        "accuracy": float((outputs.argmax(1) == labels).double().mean()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = train()
    CHECKPOINT.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, CHECKPOINT)
    print(quality(model))
