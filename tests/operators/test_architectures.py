"""Nets beyond perceptrons against dense float64 Hessians: attention, recurrence, group normalisation, tied weights."""

import pytest
import torch
from torch import nn

from hbanalysis.operators import WeightHessian
from tests.oracles import Recurrent, Residual, Transformer, close, dense_hessian, dense_oracle, differences, seeded

TOKENS = seeded(lambda: torch.randint(0, 6, (9, 5)))
LABELS = seeded(lambda: torch.randint(0, 6, (9, 5)), 2).masked_fill(
    torch.arange(9)[:, None] * 2 < torch.arange(5), -100
)


def token_mean(z):
    return nn.functional.cross_entropy(z.reshape(-1, 6), LABELS.reshape(-1), ignore_index=-100)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [4, 100])
def test_transformer_with_ignored_tokens(tied, chunk):
    model = seeded(lambda: Transformer(tied)).double()
    H = WeightHessian(model, TOKENS, LABELS, chunk_size=chunk)
    assert (H.samples, H.total) == (9, (LABELS != -100).sum().item())
    assert close(H.dense(), differences(model, TOKENS, token_mean), 1e-8)
    assert H.loss() == pytest.approx(token_mean(model.eval()(TOKENS)).item(), rel=1e-12)


def test_lstm():
    model = seeded(Recurrent).double()
    x, y = seeded(lambda: torch.randint(0, 7, (8, 4))), torch.arange(8) % 3
    truth = differences(model, x, lambda z: nn.functional.cross_entropy(z, y))
    assert close(WeightHessian(model, x, y, chunk_size=3).dense(), truth, 1e-8)


def test_group_norm_gelu_residual():
    model = seeded(Residual).double()
    x, y = seeded(lambda: torch.rand(7, 1, 5, 5)).double(), torch.arange(7) % 3
    assert close(WeightHessian(model, x, y, chunk_size=3).dense(), dense_oracle(model, x, y))


def test_next_token_loss_shifts_the_labels():
    model = seeded(lambda: Transformer(True)).double()
    labels = TOKENS.masked_fill(LABELS == -100, -100)

    def mean(z):
        return nn.functional.cross_entropy(z[:, :-1].reshape(-1, 6), labels[:, 1:].reshape(-1))

    assert close(
        WeightHessian(model, TOKENS, labels, loss="next_token").dense(), differences(model, TOKENS, mean), 1e-8
    )


class Wrapped(nn.Module):
    """Takes keywords and returns an object with logits, as models of Hugging Face do."""

    class Output:
        def __init__(self, logits):
            self.logits = logits

    def __init__(self, inner, as_dict):
        super().__init__()
        self.inner, self.as_dict = inner, as_dict

    def forward(self, input_ids, attention_mask=None, use_cache=True):
        z = self.inner(input_ids) * (1.0 if attention_mask is None else attention_mask[:, :, None])
        assert not use_cache
        return {"logits": z, "hidden": None} if self.as_dict else Wrapped.Output(z)


@pytest.mark.parametrize("key", ["labels", "targets"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_dict_batches_and_outputs_with_logits(key, as_dict):
    inner = seeded(Transformer).double()
    truth = WeightHessian(inner, TOKENS, LABELS) @ torch.ones(sum(p.numel() for p in inner.parameters())).double()
    batches = [
        {"input_ids": x, "attention_mask": torch.ones_like(x), "use_cache": False, key: y}
        for x, y in zip(TOKENS.split(4), LABELS.split(4), strict=True)
    ]
    H = WeightHessian(Wrapped(inner, as_dict), batches)
    assert close(H @ torch.ones(H.shape[0], dtype=torch.float64), truth, 1e-12)


def test_tuple_inputs_are_positional_and_forward_overrides():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x, scale):
            return self.a(x) * scale, "extra"

    model = Two().double()
    x, scale, y = torch.rand(6, 3).double(), torch.rand(6, 1).double(), torch.arange(6) % 2
    H = WeightHessian(model, (x, scale), y, forward=lambda m, inputs: m(*inputs)[0])
    truth = dense_hessian(model, (x, scale), lambda z: nn.functional.cross_entropy(z[0], y))
    assert close(H.dense(), truth)
    same = WeightHessian(model, [((x, scale), y)], forward=lambda m, inputs: m(*inputs)[0])
    assert close(same.dense(), truth)
