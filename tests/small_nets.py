"""A small network on the digits, trained in float64, whose whole Hessian can be written down."""

import torch
from torch import Tensor, nn

from hbanalysis import data


def trained_on_digits(samples: int, hidden: int, steps: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Full-batch gradient descent with momentum on 4x4 averages of the images; returns model, inputs, labels."""
    digits = data.load("digits", samples=samples)
    x = nn.functional.avg_pool2d(digits.images, 7).flatten(1).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), digits.labels).backward()
        optimizer.step()
    return model, x, digits.labels


class Square(torch.autograd.Function):
    """The square, marked so that its gradient has no derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]
