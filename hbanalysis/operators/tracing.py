"""Products from one traced program: what does not depend on the vector is computed once a chunk, the rest replayed.

Forward-over-reverse differentiation, the derivative of the gradient along v, is traced once for chunks of one shape and
cut in two: the operations that do not depend on v, whose results are kept for every chunk, and the linear map from v to
H v. The linear part holds no operation twice and runs without autograd.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize, grad, jvp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from hbanalysis.errors import InputError
from hbanalysis.operators import structures
from hbanalysis.operators.guards import operations
from hbanalysis.operators.objective import Objective
from hbanalysis.operators.products import GraphEngine, Handle
from hbanalysis.operators.samples import Chunk

# Operations of a gradient over all samples from which on some thirty products pay for tracing. Tracing took some two
# seconds for small nets; a product saves a fifth of its time; a core did some 5e10 operations a second.
WORTHWHILE = {"cpu": 5e9, "cuda": 5e12}
AGREEMENT = 1e4  # times the dtype's rounding: how far traced products may be from those of the graphs
ROUNDING = 10  # the same, relative to the whole product, for parameters whose part of it is all rounding
LOSS_AGREEMENT = 1e3  # the same, for the summed loss of a chunk
# Operations whose forward-over-reverse derivative, traced, ends the process (PyTorch 2.15).
CRASHING = {"MseLossBackward0"}
_MASKS = (torch.bool, torch.uint8)
_DATA_DEPENDENT = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
_GRADIENT = 3  # a gradient takes this many times the operations of a forward pass

_log = logging.getLogger(__name__)


class TracedEngine(GraphEngine):
    """Handles that replay a traced program where that pays and agrees with the graphs, else those of the graphs.

    Cost: a gradient to build, some 1.4 more to multiply; tracing takes seconds, once for each shape of chunks. Chunks
    of other shapes, such as a last one with fewer samples, are multiplied by their graphs.

    Args:
        objective: The loss of a chunk as a function of the weights.
        mode: ``"traced"``, ``"graph"``, or ``"auto"``, which traces if the samples are worth it.
    """

    modes = ("auto", "graph", "traced")

    def __init__(self, objective: Objective, mode: str = "auto") -> None:
        super().__init__(objective, mode)
        self._programs: dict[tuple[Any, ...], Program | None] = {}
        self._trusted: set[tuple[Any, ...]] = set()
        self._unsafe: set[str] = set()  # operations of the model or loss whose trace would end the process

    def prepare(self, chunk: Chunk, samples: int) -> None:
        """See `Engine.prepare`."""
        signature = chunk.signature
        if signature in self._programs or self.mode == "graph" or self.refused:
            return
        device = structures.first(chunk.targets).device
        if self.mode == "traced" or self._operations(chunk) * samples >= _threshold(device):
            self._programs[signature] = None
            super().build(chunk, check=True)  # what is wrong with model or data is better said without a trace
            self._attempt(lambda: self._adopt(chunk))

    def renew(self) -> None:
        """See `Engine.renew`: programs have to agree with the graphs once more before they are used."""
        self._trusted.clear()

    def build(self, chunk: Chunk, check: bool = False) -> Handle:
        """See `Engine.build`."""
        signature = chunk.signature
        if self._programs.get(signature) is None:
            return super().build(chunk, check)
        if signature not in self._trusted:
            self._attempt(lambda: self._verify(chunk))
            return super().build(chunk, check)
        found: list[Handle] = []
        self._attempt(lambda: found.append(self._replayed(chunk, check)))
        return found[0] if found else super().build(chunk, check)

    def _replayed(self, chunk: Chunk, check: bool) -> Handle:
        """Return the handle of a program run on a chunk.

        Raises:
            ArithmeticError: A count in the program was that of the chunk it was traced on: the loss is another one.
        """
        program = self._programs[chunk.signature]
        assert program is not None
        loss, saved = program.build(chunk)
        if check:
            outputs = self.objective.outputs(chunk)
            self.objective.check(outputs, chunk)
            expected = self.objective.reduce(outputs, chunk).detach()
            allowed = LOSS_AGREEMENT * torch.finfo(self.objective.space.dtype).eps
            if bool((loss - expected).abs() > allowed * expected.abs()):
                raise ArithmeticError(f"the traced loss of {chunk.name} is {float(loss):g}, not {float(expected):g}")
        return TracedHandle(self.objective, program, loss, saved, self._known(chunk))

    def _operations(self, chunk: Chunk) -> float:
        """Operations of a sample's gradient."""
        few = chunk.rows(slice(0, 2))
        try:
            with FlopCounterMode(display=False) as counter:
                self.objective.outputs(few)
        except RuntimeError:  # a model that differentiates by itself cannot be counted, nor traced
            return 0.0
        return _GRADIENT * counter.get_total_flops() / len(few)

    def _inspect(self, roots: Sequence[Tensor], gradient: Sequence[Tensor | None]) -> None:
        self._unsafe |= operations(roots) & CRASHING
        super()._inspect(roots, gradient)

    def _adopt(self, chunk: Chunk) -> None:
        """Trace a program on a chunk and compare it with the graphs.

        Raises:
            TypeError: The model has operations that cannot be traced.
            ArithmeticError: See `_verify`.
        """
        if self._unsafe:
            raise TypeError(f"{', '.join(sorted(self._unsafe))} cannot be traced with PyTorch {torch.__version__}")
        self._programs[chunk.signature] = Program(self.objective, chunk)
        self._verify(chunk)

    def _verify(self, chunk: Chunk) -> None:
        """Compare a program with the graphs, parameter by parameter.

        Raises:
            ArithmeticError: They differ by more than rounding.
        """
        program, space = self._programs[chunk.signature], self.objective.space
        assert program is not None
        vector = torch.randn(space.size, generator=torch.Generator().manual_seed(0), dtype=space.dtype)
        vector = vector.to(space.device)
        loss, saved = program.build(chunk)
        traced = TracedHandle(self.objective, program, loss, saved, set()).multiply(vector)
        graph = super().build(chunk).multiply(vector)
        eps = torch.finfo(space.dtype).eps
        for name, one, other in zip(space.names, space.split(traced), space.split(graph), strict=True):
            error, size = float((one - other).norm()), float(other.norm())
            if not error <= AGREEMENT * eps * size + ROUNDING * eps * float(graph.norm()):
                raise ArithmeticError(f"the traced product is off by {error:.1e} of {size:.1e} in {name!r}")
        self._trusted.add(chunk.signature)
        self.kind = "traced"

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run an action on programs; whatever it meets, the graphs remain."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action()
        except Exception as error:  # tracing runs the user's model inside PyTorch's machinery: anything may come
            self.refused = f"{type(error).__name__}: {error}".splitlines()[0]
            self.kind = "graph"
            self._programs = dict.fromkeys(self._programs)
            message = f"Products are not traced but come from autograd graphs, some 1.3 times slower ({self.refused})."
            if self.mode == "traced":
                warnings.warn(message, UserWarning, stacklevel=2)
            _log.info(message)


class TracedHandle(Handle):
    """A chunk's kept results; see `Handle`."""

    def __init__(
        self, objective: Objective, program: "Program", loss: Tensor, saved: Sequence[Tensor], known: set[int]
    ) -> None:
        super().__init__(loss)
        self._objective, self._program, self._saved, self._known = objective, program, saved, known

    @cached_property
    def bytes(self) -> int:
        """See `Handle.bytes`: the distinct storages of the kept results."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self._saved}
        return sum(size for address, size in storages.items() if address not in self._known)

    @torch.no_grad()
    def multiply(self, vector: Tensor) -> Tensor:
        """See `Handle.multiply`."""
        space = self._objective.space
        return space.join(self._program.linear(*self._saved, *space.split(vector)))


class Program:
    """The traced product of chunks of one shape, cut in two.

    Args:
        objective: The loss of a chunk.
        chunk: One of the chunks.
    """

    def __init__(self, objective: Objective, chunk: Chunk) -> None:
        self._objective, self._whole = objective, _Whole(objective)
        counted = objective.space.names
        self._names = counted, tuple(name for name in self._tensors() if name not in counted)
        weights, others, data = self._inputs(chunk)
        parts = [torch.zeros_like(w) for w in weights]
        product = self._product(len(weights), len(others), len(data), chunk)
        with torch.no_grad():
            graph = make_fx(functionalize(product, remove="mutations"))(*weights, *others, *data, *parts)
        _refuse_counts(graph, (*weights, *others, *data, *parts))
        before = len(weights) + len(others) + len(data)
        self._primal, self.linear, self._kept = _cut(graph, range(before, before + len(parts)), len(parts))

    @torch.no_grad()
    def build(self, chunk: Chunk) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the loss, and what the linear part needs."""
        weights, others, data = self._inputs(chunk)
        results = self._primal(*weights, *others, *data)
        return results[self._kept], results[: self._kept]

    def _tensors(self) -> dict[str, Tensor]:
        model = self._objective.model
        return dict(model.named_parameters()) | dict(model.named_buffers())

    def _places(self) -> dict[str, list[str]]:
        """Return the places of each tensor: several where modules share it, one where a module has several names.

        PyTorch's own tying would replace the tensors of such a module twice, and put back those of the trace.
        """
        names = {id(tensor): name for name, tensor in self._tensors().items()}
        places: dict[str, list[str]] = {name: [] for name in names.values()}
        for path, module in self._objective.model.named_modules():
            for key, tensor in {**module._parameters, **module._buffers}.items():
                if tensor is not None:
                    places[names[id(tensor)]].append(f"{path}.{key}" if path else key)
        return places

    def _inputs(self, chunk: Chunk) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        found = self._tensors()
        weights, others = ([found[n].detach() for n in names] for names in self._names)
        return weights, others, structures.leaves((chunk.inputs, chunk.targets, chunk.weights))

    def _product(self, weights: int, others: int, data: int, like: Chunk) -> Callable[..., tuple[Tensor, ...]]:
        """Return the function to trace: of weights, other tensors, data and v, to H v and the loss."""
        places = self._places()

        def total(counted: Sequence[Tensor], rest: Sequence[Tensor], chunk: Chunk) -> tuple[Tensor, Tensor]:
            names = (name for names in self._names for name in names)
            given = {
                f"model.{place}": t for name, t in zip(names, (*counted, *rest), strict=True) for place in places[name]
            }
            loss = functional_call(self._whole, given, (chunk,), tie_weights=False)
            return loss, loss

        def product(*tensors: Tensor) -> tuple[Tensor, ...]:
            cuts = (weights, weights + others, weights + others + data)
            counted, rest = tensors[: cuts[0]], tensors[cuts[0] : cuts[1]]
            given, parts = iter(tensors[cuts[1] : cuts[2]]), tensors[cuts[2] :]
            inputs, targets, each = structures.mapped(lambda _: next(given), (like.inputs, like.targets, like.weights))
            chunk = Chunk(inputs, targets, each, like.index, like.first)
            slope = partial(grad(total, has_aux=True), rest=rest, chunk=chunk)
            results: tuple[Any, ...] = jvp(slope, (counted,), (parts,), has_aux=True)
            _, tangents, loss = results
            return *tangents, loss

        return product


class _Whole(nn.Module):
    """Model and loss as one module, whose parameters `functional_call` can replace."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model, self._objective = objective.model, objective

    def forward(self, chunk: Chunk) -> Tensor:
        return self._objective.reduce(self._objective.outputs(chunk), chunk)


def _refuse_counts(traced: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
    """Raise where a program's sizes or numbers came from the values of a chunk: on another one they would be wrong.

    Raises:
        TypeError: Names the operation.
    """
    found = [node for node in traced.graph.nodes if set(getattr(node.target, "tags", ())) & _DATA_DEPENDENT]
    indexing = [node for node in found if node.target is torch.ops.aten.index.Tensor]
    if indexing:
        with torch.no_grad():
            ShapeProp(traced).propagate(*inputs)
    # Indices that are numbers give as many entries as there are of them; a mask gives those of this chunk.
    for node in found:
        indices = [index for index in node.args[1] if index is not None] if node in indexing else []
        if node not in indexing or any(index.meta["tensor_meta"].dtype in _MASKS for index in indices):
            raise TypeError(f"{node.target} depends on the values of a chunk, and cannot be traced")


def _cut(traced: fx.GraphModule, linear: range, products: int) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    """Cut a traced program at the inputs ``linear``.

    Returns the part that does not depend on them, which returns the results that the other part needs, then those
    outputs of the program that come after the first ``products``; the other part, of these results and the inputs
    ``linear``; and how many results there are.
    """
    nodes = list(traced.graph.nodes)
    given = [node for node in nodes if node.op == "placeholder"]
    outputs = list(next(node for node in nodes if node.op == "output").args[0])
    dependent = {given[i] for i in linear}
    for node in nodes:
        if node.op != "output" and any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    if any(node in dependent for node in outputs[products:]):
        raise InputError("The loss depends on the direction of the product.")
    needed = {source for node in dependent for source in node.all_input_nodes} | set(outputs[:products])
    kept = [node for node in nodes if node in needed and node not in dependent]

    copies: dict[fx.Node, fx.Node] = {}
    first = fx.Graph()
    for node in nodes:
        if node.op != "output" and node not in dependent:
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in (*kept, *outputs[products:])))

    copies, second = {}, fx.Graph()
    for number, node in enumerate(kept):
        copies[node] = second.placeholder(f"kept_{number}")
    for i in linear:
        copies[given[i]] = second.placeholder(f"part_{i}")
    for node in nodes:
        if node in dependent and node.op != "placeholder":
            copies[node] = second.node_copy(node, copies.__getitem__)
    second.output(tuple(copies[node] for node in outputs[:products]))
    for graph in (first, second):
        graph.eliminate_dead_code()
        graph.lint()
    return fx.GraphModule(traced, first), fx.GraphModule(traced, second), len(kept)


def _threshold(device: torch.device) -> float:
    return WORTHWHILE["cpu" if device.type == "cpu" else "cuda"]
