"""The ATen operations that keep a function piecewise linear, and a recorder of those that depend on an input."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SHAPES = _names("""
    as_strided view reshape _reshape_alias _unsafe_view view_as permute transpose t swapaxes movedim expand expand_as
    squeeze unsqueeze slice select narrow alias detach clone contiguous copy _to_copy to lift_fresh lift cat stack split
    split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind unfold unflatten flatten im2col col2im flip roll
    rot90 repeat index_select index gather scatter scatter_add index_put _unsafe_index _unsafe_index_put index_add
    index_copy select_scatter slice_scatter diagonal diag_embed triu tril constant_pad_nd pad reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle masked_fill masked_select
""")
_LINEAR = _names("""
    add sub rsub neg positive zero fill sum mean cumsum trace nansum avg_pool1d avg_pool2d avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    mkldnn_adaptive_avg_pool2d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
""")
_PIECEWISE = _names("""
    relu relu6 leaky_relu hardtanh hardsigmoid threshold clamp clamp_min clamp_max clip abs absolute maximum minimum max
    min amax amin fmax fmin max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices mkldnn_max_pool2d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d aminmax sort
    topk kthvalue median cummax cummin hardshrink softshrink where
""")
_CONSTANT = _names("""
    sign sgn floor ceil round trunc heaviside gt lt ge le eq ne logical_not logical_and logical_or logical_xor
    bitwise_not bitwise_and bitwise_or argmax argmin argsort isnan isinf isfinite any all nonzero zeros_like ones_like
    full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided empty_strided
""")
_QUALIFYING = frozenset((*_SHAPES, *_LINEAR, *_PIECEWISE, *_CONSTANT))
# Arguments of which at most one may depend on the input.
_PRODUCTS = _names("mul multiply mm bmm matmul mv dot vdot inner linear prelu _prelu_kernel")
_CONVOLUTIONS = _names("""
    convolution _convolution convolution_overrideable mkldnn_convolution cudnn_convolution cudnn_convolution_transpose
    miopen_convolution _conv_depthwise2d conv_depthwise3d thnn_conv2d _slow_conv2d_forward slow_conv3d conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d conv_transpose3d slow_conv_transpose2d slow_conv_transpose3d
""")
_SUMS_OF_PRODUCTS = _names("addmm addbmm baddbmm addmv addr addcmul")
_FACTORS = dict.fromkeys(_PRODUCTS + _CONVOLUTIONS, (0, 1)) | dict.fromkeys(_SUMS_OF_PRODUCTS, (1, 2))
_QUOTIENTS = _names("div divide true_divide")
_NORMALISATIONS = _names("""
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_impl_index
    cudnn_batch_norm miopen_batch_norm batch_norm
""")


class Recorder(TorchDispatchMode):
    """Records the operations on values that depend on an input while it is entered, and the first that is an obstacle.

    A value depends on the input if its storage has been written by an operation that read such a value: in-place
    operations and views are seen through, weights and what is computed from weights alone do not count.

    Args:
        leaf: The input.

    Attributes:
        obstacle: What is not known to be piecewise linear, or ``None``.
    """

    def __init__(self, leaf: Tensor) -> None:
        super().__init__()
        self.obstacle: str | None = None
        self._names: dict[str, None] = {}
        # Tensors are kept, so that no address is given out twice.
        self._dependent: dict[int, Tensor] = {_address(leaf): leaf.detach()}

    @property
    def operations(self) -> tuple[str, ...]:
        """Names, in order of first use."""
        return tuple(self._names)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note it."""
        kwargs = kwargs or {}
        depends = any(self._depends(value) for value in tree_leaves((args, kwargs)))
        name = func.overloadpacket.__name__.removesuffix("_")  # which marks the operations in place
        if depends:
            self._names.setdefault(name)
            if self.obstacle is None:
                self.obstacle = self._judge(name, func, args, kwargs)
        results = func(*args, **kwargs)
        if depends and name not in _CONSTANT:
            for value in tree_leaves(results):
                if isinstance(value, Tensor):
                    self._dependent.setdefault(_address(value), value)
        return results

    def _depends(self, value: Any) -> bool:
        return isinstance(value, Tensor) and _address(value) in self._dependent

    def _judge(self, name: str, func: Any, args: Any, kwargs: Any) -> str | None:
        """Return what is wrong with an operation, or ``None``."""
        if name in _QUALIFYING:
            return None
        named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
        values = list(named.values())
        if name in _FACTORS:
            both = all(self._depends(values[place]) for place in _FACTORS[name])
            return f"{name} of two values that both depend on the input" if both else None
        if name in _QUOTIENTS:
            below = self._depends(values[1])
            return f"{name} by a value that depends on the input" if below else None
        if name in _NORMALISATIONS:
            by_batch = named.get("training", False)
            scaled = any(self._depends(value) for value in tree_leaves(values[1:]))
            return f"{name} with the statistics of the values at hand" if by_batch or scaled else None
        if name == "_local_scalar_dense":
            return "a number taken out of a tensor that depends on the input (.item(), float() or int())"
        return name


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
