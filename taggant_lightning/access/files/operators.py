"""The operators that a model's file may use: those of image classifiers, by name, and why another one is refused.

Many of ATen's operators trust the indices and running statistics that they are given, and read and write outside of memory
where a file gives others. So operators are allowed by list. The lists hold what image classifiers of timm need as torch.export,
TorchScript and ONNX write them (`tests/access/files/test_families.py` exports some), and their close relatives: arithmetic,
comparisons, shapes, convolution, pooling, normalisation, attention, indexing that checks its indices.
"""

from taggant_lightning.errors import TaggantError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators of ATen, of any overload; a name that ends in _ is the same operator in place.
ATEN = _names("""
    abs acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d add addbmm addcdiv addcmul
    addmm alias all alpha_dropout amax amin any arange argmax argmin argsort as_strided asin atan atan2 atleast_1d
    atleast_2d avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_to cat
    ceil celu chunk clamp clamp_max clamp_min clone col2im concat concatenate constant_pad_nd contiguous conv1d conv2d
    conv3d conv_transpose2d convolution copy cos cosine_similarity cross cummax cumsum detach detach_copy diagonal dim div
    divide dot dropout einsum elu embedding empty empty_like eq erf exp expand expand_as expm1 eye feature_dropout fill
    flatten flip floor floor_divide fmod full full_like gather ge gelu glu greater group_norm gt hardsigmoid hardswish
    hardtanh im2col index index_copy index_select instance_norm isfinite isinf isnan layer_norm le leaky_relu lerp less
    lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_softmax logical_and
    logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max max_pool1d max_pool2d
    max_pool2d_with_indices maximum mean meshgrid min minimum mish mm moveaxis movedim mul multiply mv nan_to_num narrow
    native_group_norm native_layer_norm ne neg negative new_empty new_full new_ones new_zeros norm numpy_T ones ones_like
    outer pad permute pixel_shuffle pixel_unshuffle pow prelu prod ravel reciprocal reflection_pad2d relu relu6 remainder
    repeat repeat_interleave replication_pad2d reshape reshape_as resolve_conj resolve_neg rms_norm roll round rrelu rsqrt
    rsub scalar_tensor scaled_dot_product_attention scatter scatter_add select select_copy selu sigmoid sign silu sin size
    slice slice_copy softmax softplus sort split split_copy split_with_sizes split_with_sizes_copy sqrt square squeeze
    squeeze_copy stack std std_mean sub subtract sum swapaxes swapdims sym_numel sym_size sym_stride t take_along_dim tan
    tanh tensor_split threshold tile to topk transpose tril triu true_divide type_as unbind unflatten unfold unsafe_chunk
    unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean view view_as view_copy where
    zero zeros zeros_like
""")
# Names that begin with _ are internal, and many trust their caller. These check what they are given, or are given no indices.
ATEN_INTERNAL = _names("""
    _adaptive_avg_pool2d _convolution _local_scalar_dense _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_index
    _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
""")
# What TorchScript's own language adds: numbers, lists, dictionaries, texts of error messages.
SCRIPT_ATEN = _names("""
    __and__ __contains__ __derive_index __getitem__ __is__ __isnot__ __not__ __or__ __range_length _set_item append
    as_tensor Bool ceil copy copy_ cpu dict element_size extend find Float FloatImplicit floordiv format get insert Int
    IntImplicit is_floating_point is_grad_enabled item items join keys len list lower mathremainder numel percentFormat pop
    reverse ScalarImplicit str strip sum tensor upper values warn
""")
PRIM = _names("""
    abs ceil Constant data device DictConstruct dtype floor GetAttr If ImplicitTensorToNum is_cuda isinstance layout
    ListConstruct ListUnpack Loop max min NumToTensor RaiseException requires_grad shape StringIndex TupleConstruct
    TupleIndex TupleSlice TupleUnpack unchecked_cast unchecked_unwrap_optional Uninitialized
""")
# Operators that draw at random. In a classifier they are what is left of training: dropout, stochastic depth.
ATEN_RANDOM = _names("""
    bernoulli exponential geometric log_normal multinomial native_dropout normal poisson rand rand_like randint randint_like
    randn randn_like random randperm rrelu_with_noise uniform
""")
# Operators of ONNX itself, quantised models included; domains other than "", "ai.onnx" and these of onnxruntime are refused.
ONNX = _names("""
    Abs Acos Add And ArgMax ArgMin Asin Atan Attention AveragePool BatchNormalization BitwiseAnd BitwiseOr Cast CastLike
    Ceil Celu CenterCropPad Clip Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization Hardmax HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool LRN MatMul MatMulInteger Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or Pad Pow PRelu QLinearConv QLinearMatMul QuantizeLinear
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize RMSNormalization RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""")
ONNX_RANDOM = _names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")


def is_allowed(name: str) -> bool:
    """Return whether ATen's operator of this name, in place or not, is on the list."""
    return name in ATEN_INTERNAL or (not name.startswith("_") and name.removesuffix("_") in ATEN)


def draws_at_random(name: str) -> bool:
    """Return whether ATen's operator of this name draws at random."""
    return name.removesuffix("_") in ATEN_RANDOM


def not_allowed(what: str, operator: str) -> TaggantError:
    """Return the error of a file that needs an operator which is not on the list."""
    return TaggantError(
        f"{what} needs {operator:.80}, which is not run from a file: image classifiers do without it, and operators outside "
        "of the list may touch memory or files (docs/model-files.md); export a plain classifier, or collect "
        "answers for --predictions"
    )


def in_training(what: str, part: str) -> TaggantError:
    """Return the error of a file that was exported in training mode.

    Args:
        what: The argument and its file.
        part: What shows it, as `dropout that is switched on`.
    """
    return TaggantError(
        f"{what} is in training mode ({part}), so that its answers are random or depend on what else is asked; call "
        "model.eval() and export the model again"
    )
