"""Small classifiers for the attacks, and the gradient and dense Hessian in the images by other means."""

import functools

import torch
from torch import nn
from torch.func import functional_call, grad, hessian, vmap
from torch.nn.functional import cross_entropy

from hbanalysis import attacks
from tests.oracles import seeded
from tests.small_nets import trained_on_digits

ALL = [
    attacks.fgsm,
    attacks.iterated_fgsm,
    attacks.l2_grad,
    attacks.fhsm,
    attacks.l2_hess,
    attacks.pgd,
]


@functools.cache
def _trained(steps):
    return trained_on_digits(300, 20, steps)


def digits(dtype=torch.float64, samples=60, steps=150):
    """A trained net on 16 pixels, images in [0, 1] and labels."""
    model, x, y = _trained(steps)
    copy = nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 10)).to(dtype)
    copy.load_state_dict(model.state_dict())
    return copy, x[:samples].to(dtype), y[:samples]


def hardly_trained(dtype=torch.float64):
    """The same after a few steps: its Newton systems are regular enough for dense solves."""
    return digits(dtype, steps=12)


def convolutional(dtype=torch.float64, classes=5):
    """Convolution, batch normalisation, ReLU and pooling, with running statistics of its own."""
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 9, classes),
        )
    )
    x, y = seeded(lambda: (torch.rand(11, 2, 6, 6), torch.randint(0, classes, (11,))))
    seeded(lambda: model(torch.rand(40, 2, 6, 6)))
    return model.to(dtype), x.to(dtype), y


def linear(weight, bias=None, dtype=torch.float64):
    weight = torch.as_tensor(weight, dtype=dtype)
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
        if bias is not None:
            model.bias.copy_(torch.as_tensor(bias, dtype=dtype))
    return model


def _loss(model):
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def loss(image, label):
        return cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    return loss


def gradients(model, x, labels):
    """Each sample's own, through torch.func on one sample at a time."""
    model = model.eval()
    return torch.stack([grad(_loss(model))(image, label) for image, label in zip(x, labels, strict=True)])


def hessians(model, x, labels):
    """Dense ``(n, d, d)``, forward over reverse."""
    d = x[0].numel()
    return vmap(hessian(_loss(model.eval())))(x, labels).reshape(len(x), d, d)


def cosines(a, b):
    a, b = (t.detach().flatten(1).double() for t in (a, b))
    return (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)
