"""Dense Hessians by other means than the operator's, and nets whose parts are hard for second derivatives."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy


def dense_hessian(model, inputs, mean_loss):
    """Forward-over-reverse through torch.func on the whole set at once; ``mean_loss`` maps outputs to a scalar."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    values = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    sizes, shapes = [v.numel() for v in values.values()], [v.shape for v in values.values()]
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def loss(vector):
        parts = [p.view(s) for p, s in zip(vector.split(sizes), shapes, strict=True)]
        return mean_loss(functional_call(model, dict(zip(values, parts, strict=True)), arguments))

    with sdpa_kernel(SDPBackend.MATH):
        H = hessian(loss)(torch.cat([v.reshape(-1) for v in values.values()]))
    for module, mode in modes:
        module.training = mode
    return H


def differences(model, inputs, mean_loss, step=1e-5):
    """Central differences of the gradient, exact to some 1e-9: needs no second derivative of anything.

    PyTorch's forward mode, which torch.func.hessian uses, is wrong for the weights of layer normalisation and does not
    know LSTMs.
    """
    model = copy.deepcopy(model).eval()
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    parameters = list(model.parameters())

    def gradient():
        parts = torch.autograd.grad(mean_loss(model(*arguments)), parameters)
        return torch.cat([g.reshape(-1) for g in parts])

    rows = []
    for flat in [p.data.view(-1) for p in parameters]:
        for i in range(len(flat)):
            value = flat[i].item()
            flat[i] = value + step
            high = gradient()
            flat[i] = value - step
            rows.append((high - gradient()) / (2 * step))
            flat[i] = value
    return torch.stack(rows)


def dense_oracle(model, x, y):
    return dense_hessian(model, x, lambda z: cross_entropy(z, y))


def close(matrix: Tensor, truth: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((matrix - truth).abs().max() <= tolerance * truth.abs().max())


class Residual(nn.Module):
    """Group normalisation, GELU and skip connections."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.stem(x)
        h = h + self.conv(nn.functional.gelu(self.norm(h)))
        return self.head(h.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM over tokens, classified by its last state."""

    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(7, 3), nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.lstm(self.embed(tokens))[0][:, -1])


class Transformer(nn.Module):
    """One encoder layer over tokens; a logit for every token of the vocabulary at every place."""

    def __init__(self, tied=False):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.1, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.layer(self.embed(tokens)))


def seeded(make, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
