"""Bad input is refused by name, with what is allowed and what to try."""

import copy
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hbanalysis import attacks
from hbanalysis.errors import InputError, NumericalError
from tests.attack_nets import ALL, convolutional, digits


class Through(nn.Module):
    """A model whose output is changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.change, self.layer = change, nn.Linear(16, 10)

    def forward(self, x):
        return self.change(self.layer, x)


@pytest.mark.parametrize("attack", ALL)
def test_what_every_attack_refuses(attack):
    model, x, y = digits(torch.float32)
    by_batch = nn.Sequential(nn.Linear(16, 10), nn.BatchNorm1d(10, track_running_stats=False))
    cases = [
        (lambda: attack(model, x, y, -0.1), "eps is a distance, at least 0 and finite.*given -0.1"),
        (lambda: attack(model, x, y, float("nan")), "given nan"),
        (lambda: attack(model, x, y, float("inf")), "given inf"),
        (lambda: attack(model, x, y, torch.tensor([0.1, -0.2])), "one for each of the 60 samples; given shape"),
        (lambda: attack(model, x, y, torch.full((60,), -0.2)), "given -0.2"),
        (lambda: attack(model, 2 * x - 1, y, 0.1), r"lie in \[-1, .*outside clip=\(0.0, 1.0\).*normalises"),
        (lambda: attack(model, x + 0.5, y, 0.1, clip=(0, 1)), r"outside clip=\(0, 1\)"),
        (lambda: attack(model, torch.full_like(x, 1 + 1e-6), y, 0.1), r"lie in \[1\.00000095, 1\.00000095\], outside"),
        (lambda: attack(model, x * torch.nan, y, 0.1), "hold NaN or infinity"),
        (lambda: attack(model, x / 0, y, 0.1, clip=None), "hold NaN or infinity"),
        (lambda: attack(model, (255 * x).byte(), y, 0.1), r"given torch.uint8. For bytes use x.float\(\) / 255"),
        (lambda: attack(model, x.half(), y, 0.1), "given torch.float16"),
        (lambda: attack(model, x, np.full(60, 0.5), 0.1), "integer classes; given torch.float64"),
        (lambda: attack(model, x.double(), y, 0.1), r"images are torch.float64, the weights torch.float32"),
        (lambda: attack(model, x[0, 0], y, 0.1), r"given shape \(\)"),
        (lambda: attack(model, x[0], y, 0.1), r"given shape \(16,\). For one image use x\[None\]"),
        (lambda: attack(model, x, y[:3], 0.1), "60 images need as many labels; given 3"),
        (lambda: attack(model, x, y[:, None], 0.1), r"as many labels; given \(60, 1\)"),
        (lambda: attack(model, x, y.float(), 0.1), "integer classes; given torch.float32"),
        (lambda: attack(model, x, y > 3, 0.1), "given torch.bool"),
        (lambda: attack(model, x, y + 1, 0.1), r"The label 10 is out of range.*0..9. \d labels"),
        (lambda: attack(model, x, y - 1, 0.1), "The label -1 is out of range"),
        (lambda: attack(model, x, y, 0.1, clip=(1.0, 0.0)), r"pair \(low, high\).*given \(1.0, 0.0\)"),
        (lambda: attack(model, x, y, 0.1, clip=(0.0, float("inf"))), "finite numbers"),
        (lambda: attack(model, x, y, 0.1, batch_size=0), "batch_size must be at least 1"),
        (lambda: attack(model, x, y, 0.1, softmax="plane"), "Unknown softmax 'plane'. Did you mean 'plain'"),
        (lambda: attack(model, x.to("meta"), y.to("meta"), 0.1), r"images \(meta\).*on one device"),
        (lambda: attack(by_batch, x, y, 0.1), "'1' has no running statistics"),
        (lambda: attack(copy.deepcopy(model).bfloat16(), x, y, 0.1), "bfloat16"),
        (lambda: attack(Through(lambda f, x: f(x.detach())), x, y, 0.1), "Give the model without the step"),
        (lambda: attack(Through(lambda f, x: f(x).detach()), x, y, 0.1), "cannot be differentiated in the images"),
        (lambda: attack(Through(lambda f, x: f(x).argmax(1)), x, y, 0.1), r"need logits \(n, c\).*returned \(\d+,\)"),
        (
            lambda: attack(Through(lambda f, x: f(x)[:, :1]), x, y, 0.1),
            r"at least 2 classes.*wrapped to return \[0, z\]",
        ),
        (lambda: attack(Through(lambda f, x: (f(x), x)), x, y, 0.1), "one tensor of logits.*returned a tuple"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("attack", ALL)
def test_a_model_that_is_not_finite_is_named(attack):
    model, x, y = digits(torch.float32)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"logits of \d+ of 60 images are not finite; check the weights"):
        attack(model, x, y, 0.1)


def test_what_some_attacks_refuse():
    model, x, y = digits(torch.float32)
    cases = [
        (partial(attacks.iterated_fgsm, steps=0), "steps must be at least 1; given 0"),
        (partial(attacks.pgd, steps=0), "steps must be at least 1"),
        (partial(attacks.pgd, restarts=0), "restarts must be at least 1"),
        (partial(attacks.pgd, norm="1"), "Unknown norm '1'.*Known: 2, inf"),
        (partial(attacks.pgd, loss="margins"), "Unknown loss 'margins'. Did you mean 'margin'"),
        (partial(attacks.pgd, step_size=0.0), "step_size is a distance above 0.*given 0.0"),
        (partial(attacks.pgd, step_size=float("nan")), "given nan"),
        (partial(attacks.fhsm, iterations=0), "iterations must be at least 1"),
        (partial(attacks.l2_hess, damping=-1.0), "damping .*at least 0 and finite; given -1.0"),
        (partial(attacks.l2_hess, damping=float("nan")), "given nan"),
        (partial(attacks.fhsm, solver="cgs"), "Unknown solver 'cgs'. Did you mean 'cg'"),
        (partial(attacks.fhsm, solver="exact", softmax="plain"), "Use solver='cg'"),
    ]
    for attack, message in cases:
        with pytest.raises(InputError, match=message):
            attack(model, x, y, 0.1)


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g


def test_second_order_attacks_need_second_derivatives():
    _, x, y = digits(torch.float32)
    once = Through(lambda f, x: f(OnceOnly.apply(x)))
    assert attacks.fgsm(once, x, y, 0.1).shape == x.shape
    for attack in (attacks.fhsm, attacks.l2_hess):
        with pytest.raises(InputError, match="OnceOnly.*cannot be differentiated twice"):
            attack(once, x, y, 0.1)


def test_other_helpers_refuse_the_same():
    model, x, y = digits(torch.float32)
    whole = partial(attacks.fgsm, eps=0.1)
    cases = [
        (lambda: attacks.still_correct(model, x, y[:2]), "as many labels"),
        (lambda: attacks.still_correct(model, x, y + 1), "out of range"),
        (lambda: attacks.accuracy_under(model, whole, x[:0], y[:0]), "at least one sample"),
        (lambda: attacks.minimal_distance(model, x, y, norm="1"), "Unknown norm"),
        (lambda: attacks.minimal_distance(model, x, y, tolerance=0.0), "tolerance is a distance above 0"),
        (lambda: attacks.minimal_distance(model, x, y, upper=-1.0), "upper is a distance above 0"),
        (lambda: attacks.minimal_distance(model, x, y, clip=None), "give upper="),
        (lambda: attacks.minimal_distance(model, x - 1, y), "outside clip"),
        (lambda: attacks.masking_report(model, x[:0], y[:0], 0.1), "at least one sample"),
        (lambda: attacks.masking_report(model, x, y, 0.0), "eps must be above 0 and at most half.*0.5; given 0.0"),
        (lambda: attacks.masking_report(model, x, y, 0.6), "given 0.6"),
        (lambda: attacks.masking_report(model, x, y, torch.full((60,), 0.1)), r"one eps.*given shape \(60,\)"),
        (lambda: attacks.masking_report(model, x, y, 0.1, allowed=1.0), "allowed is a share"),
        (lambda: attacks.masking_report(model, x, y, 0.1, restarts=0), "restarts must be at least 1"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()


FORBIDDEN = """
import sys
import numpy as np
import torch
import hbanalysis as hb
from hbanalysis import attacks, inputs
from hbanalysis.errors import InputError

model, x, y = torch.nn.Linear(4, 3), torch.rand(3, 4), torch.tensor([0, 1, 2])
taken = [
    *(lambda x, y, attack=attack: attack(model, x, y, 0.1) for attack in (attacks.fgsm, attacks.l2_hess, attacks.pgd)),
    lambda x, y: attacks.still_correct(model, x, y),
    lambda x, y: attacks.worst_case(model, [], x, y),
    lambda x, y: attacks.accuracy_under(model, lambda model, x, y: x, x, y),
    lambda x, y: attacks.minimal_distance(model, x, y),
    lambda x, y: attacks.masking_report(model, x, y, 0.1),
    *(
        lambda x, y, of=of: of(model, x, y)
        for of in (hb.input_spectrum, hb.newton_direction, hb.boundary_distance, hb.InputHessian, hb.logit_jacobians)
    ),
    *(
        lambda x, y, of=of: of(model, x, y)
        for of in (inputs.hessian_ends, inputs.dense_input_hessians, inputs.product_errors)
    ),
]

def message(call, *given):
    try:
        call(*given)
    except InputError as error:
        print(error)
    else:
        print("nothing was refused")

for call in taken:
    for images in (x.numpy(), x.tolist()):
        message(call, images, y)
    for labels in (None, "012", ["a", "b", "c"], [[0], [1, 2]], [0.5, 1.0, 2.0]):
        message(call, x, labels)
message(inputs.is_piecewise_linear, model, x.numpy())
message(lambda: attacks.masking_report(model, x, y, 0.1, clip=None))
"""


def test_what_the_annotations_forbid_is_refused_by_name():
    """In a process of its own, since tests check annotations before a function sees its arguments."""
    run = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True, check=True)
    *lines, linear, clip = run.stdout.splitlines()
    kinds = [f"must be a tensor; given {kind}. Try torch.as_tensor(x)." for kind in ("ndarray", "list")]
    kinds += [f"integer classes, a tensor (n,); given a {kind}." for kind in ("NoneType", "str", "list", "list")]
    kinds += ["integer classes; given torch.float32."]
    assert len(lines) == 16 * len(kinds)
    for number, line in enumerate(lines):
        assert kinds[number % len(kinds)] in line
    assert kinds[0] in linear and "needs clip" in clip


@pytest.mark.parametrize("wrap", [lambda z: SimpleNamespace(logits=z), lambda z: {"logits": z, "scores": None}])
def test_outputs_with_logits_are_understood(wrap):
    model, x, y = convolutional()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return wrap(self.inner(x))

    for attack in ALL:
        assert torch.equal(attack(Wrapped(), x, y, 0.1), attack(model, x, y, 0.1))
    assert torch.equal(attacks.still_correct(Wrapped(), x, y), attacks.still_correct(model, x, y))
    report = partial(attacks.masking_report, x=x, labels=y, eps=0.1, steps=2, restarts=1)
    assert report(Wrapped()) == report(model)


class Stubborn(nn.BatchNorm1d):
    """Batch normalisation that stays in training mode."""

    def train(self, mode=True):
        return super().train(True)


MIXING = {
    "centred": lambda: Through(lambda f, x: f(x - x.mean(0))),
    "functional": lambda: Through(lambda f, x: f(nn.functional.batch_norm(x, None, None, training=True))),
    "module": lambda: nn.Sequential(nn.Linear(16, 10), Stubborn(10)),
    "normalised logits": lambda: Through(lambda f, x: f(x).softmax(0)),
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_models_that_mix_samples_are_refused(name, samples):
    _, x, y = digits(torch.float32, samples=samples)
    model = MIXING[name]()
    cases = [
        *(partial(attack, eps=0.1, batch_size=size) for attack in ALL for size in (None, 1, 2)),
        *(partial(attack, eps=0.1, solver="exact") for attack in (attacks.fhsm, attacks.l2_hess)),
        *(attacks.newton_step, attacks.minimal_distance),
        *(partial(attacks.still_correct, batch_size=size) for size in (None, 1)),
        partial(attacks.masking_report, eps=0.1, steps=1, restarts=1),
        lambda model, x, labels: attacks.worst_case(model, [], x, labels),
        lambda model, x, labels: attacks.accuracy_under(model, lambda model, x, labels: x, x, labels),
    ]
    for case in cases:
        with pytest.raises(InputError, match="depend on the other samples of its batch"):
            case(model, x, y)


class Opaque(torch.autograd.Function):
    """Rounds, and has no backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.round()


@pytest.mark.parametrize(
    "change",
    [
        lambda f, x: f(x.detach()),
        lambda f, x: f(x).detach(),
        lambda f, x: f(Opaque.apply(x)),
        lambda f, x: f(torch.as_tensor(x.numpy())),
    ],
    ids=["detached inputs", "detached logits", "no backward", "numpy"],
)
def test_models_without_a_derivative_can_be_judged(change):
    _, x, y = digits(torch.float32, samples=5)
    model = Through(change)
    with torch.no_grad():
        expected = model(x).argmax(1) == y
    for size in (None, 2):
        assert torch.equal(attacks.still_correct(model, x, y, batch_size=size), expected)


def subtract(f, x):
    x -= 0.5
    return f(x)


def clamp(f, x):
    with torch.no_grad():
        x.clamp_(0.4, 0.6)
    return f(x)


@pytest.mark.parametrize("change", [subtract, clamp])
def test_models_may_write_into_what_they_are_given(change):
    _, x, y = digits(torch.float32, samples=8)
    writing = Through(change)
    apart = Through(lambda f, x: change(f, x.clone()))
    apart.layer, before = writing.layer, x.clone()
    for attack in (*ALL, partial(attacks.fhsm, solver="exact")):
        assert torch.equal(attack(writing, x, y, 0.1), attack(apart, x, y, 0.1))
    assert torch.equal(attacks.still_correct(writing, x, y), attacks.still_correct(apart, x, y))
    report = partial(attacks.masking_report, x=x, labels=y, eps=0.1, steps=2, restarts=1)
    assert report(writing) == report(apart)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda y: np.array(y, np.uint8)])
def test_labels_are_what_a_tensor_can_be_made_of(kind):
    model, x, y = digits(torch.float32, samples=12)
    labels = kind(y.tolist())
    for attack in ALL:
        assert torch.equal(attack(model, x, labels, 0.1), attack(model, x, y, 0.1))
    whole = partial(attacks.fgsm, eps=0.1)
    assert torch.equal(attacks.worst_case(model, [whole], x, labels), attacks.worst_case(model, [whole], x, y))
    assert attacks.accuracy_under(model, whole, x, labels) == attacks.accuracy_under(model, whole, x, y)
    short = partial(attacks.minimal_distance, model, x, attack=attacks.fgsm, tolerance=0.1)
    assert torch.equal(short(labels).eps, short(y).eps)
    report = partial(attacks.masking_report, model, x, eps=0.1, steps=2, restarts=1)
    assert report(labels=labels) == report(labels=y)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_taken_off(wrap):
    model, x, y = digits()
    assert torch.equal(attacks.l2_hess(wrap(model), x, y, 0.1), attacks.l2_hess(model, x, y, 0.1))
