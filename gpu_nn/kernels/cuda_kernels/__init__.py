"""The kernels on a GPU through CuPy: one file an operation, each beside its source in cuda_src."""

from gpu_nn.kernels.cuda_kernels.activation import bias_activation, bias_activation_backward
from gpu_nn.kernels.cuda_kernels.batch_norm import batch_norm, batch_norm_backward, batch_statistics
from gpu_nn.kernels.cuda_kernels.cast import cast
from gpu_nn.kernels.cuda_kernels.cuda_graph import apart, captured
from gpu_nn.kernels.cuda_kernels.dense import dense, dense_backward, relu_mask_bytes
from gpu_nn.kernels.cuda_kernels.dropout import dropout, dropout_backward
from gpu_nn.kernels.cuda_kernels.gather import gather
from gpu_nn.kernels.cuda_kernels.layer_norm import layer_norm, layer_norm_backward
from gpu_nn.kernels.cuda_kernels.linear import column_sum, column_sum_add, matmul, matmul_add
from gpu_nn.kernels.cuda_kernels.loss_scale import adjust_loss_scale, scale_rows
from gpu_nn.kernels.cuda_kernels.noise import noise
from gpu_nn.kernels.cuda_kernels.optimizer import adam, advance, clip_scale, flush_subnormals, gradient_norm, sgd
from gpu_nn.kernels.cuda_kernels.record_loss import record_loss
from gpu_nn.kernels.cuda_kernels.softmax import all_but_one_softmax, log1m_softmax, log_softmax, softmax
from gpu_nn.kernels.cuda_kernels.softmax_cross_entropy import softmax_cross_entropy

__all__ = [
    "adam",
    "adjust_loss_scale",
    "advance",
    "all_but_one_softmax",
    "apart",
    "batch_norm",
    "batch_norm_backward",
    "batch_statistics",
    "bias_activation",
    "bias_activation_backward",
    "captured",
    "cast",
    "clip_scale",
    "column_sum",
    "column_sum_add",
    "dense",
    "dense_backward",
    "dropout",
    "dropout_backward",
    "flush_subnormals",
    "gather",
    "gradient_norm",
    "layer_norm",
    "layer_norm_backward",
    "log1m_softmax",
    "log_softmax",
    "matmul",
    "matmul_add",
    "noise",
    "record_loss",
    "relu_mask_bytes",
    "scale_rows",
    "sgd",
    "softmax",
    "softmax_cross_entropy",
]
