"""Small networks as functions of their input, and dense per-sample Hessians and gradients by autograd in float64."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.oracles import seeded


class Shortcut(nn.Module):
    """Convolutions with batch normalisation around a shortcut, average pooling, concatenation and interpolation."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        h = F.relu(self.norm(self.stem(x)))
        h = F.relu(h + self.body(h), inplace=True)
        h = torch.cat([F.avg_pool2d(h, 2), F.interpolate(F.max_pool2d(h, 2), scale_factor=1.0)], 1)
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


class Functional(nn.Module):
    """Two linear layers with a function in between that no module tells of."""

    def __init__(self, function, inputs=6, classes=4):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(inputs, 8), nn.Linear(8, classes), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def conv_net(activation=nn.ReLU):
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), activation(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 8), activation(), nn.Linear(8, 4)),
    )


NETS = {
    "conv": conv_net,
    "shortcut": Shortcut,
    "leaky": lambda: conv_net(nn.LeakyReLU),
    "softplus": lambda: conv_net(lambda: nn.Softplus(3)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4)),
}


def problem(name="conv", samples=7):
    """Model (in train mode, running statistics moved off their defaults), inputs (n, 2, 6, 6) and labels."""

    def make():
        model = NETS[name]().double()
        x, y = torch.randn(samples, 2, 6, 6, dtype=torch.float64), torch.arange(samples) % 4
        model(torch.randn(40, 2, 6, 6, dtype=torch.float64))
        return model, x, y

    return seeded(make)


def evaluated(model):
    """A copy-free view of the model in eval mode for oracles: a function of one input."""

    def call(x):
        modes = [(m, m.training) for m in model.modules()]
        model.eval()
        try:
            return model(x)
        finally:
            for module, mode in modes:
                module.training = mode

    return call


def dense_hessians(model, x, y):
    """(n, d, d): autograd's own second derivatives of torch's cross-entropy, sample by sample."""
    call = evaluated(model)

    def hessian(one, label):
        found = torch.autograd.functional.hessian(lambda a: F.cross_entropy(call(a[None]), label[None]), one)
        return found.reshape(one.numel(), one.numel())

    return torch.stack([hessian(one, label) for one, label in zip(x, y, strict=True)])


def dense_gradients(model, x, y):
    """(n, d)."""
    call = evaluated(model)
    leaf = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(call(leaf), y, reduction="sum"), leaf)
    return found.flatten(1)
