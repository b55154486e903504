// End of a training step: stores the batch's cost where the host reads it later, and advances the counters.
//
// - One block adds up the costs of the rows in double, in an order that is the same in every run.
// - The place of the cost is read from device memory and advanced there, so that a CUDA graph sees its new value.

#include "block_sum.cuh"
#include "vectors.cuh"

// step_losses[position_1] = Σ_r row_losses_r / loss_scale_0;  position_0 += rows, the rows of the epoch that are done;
// position_1 += 1. Without a position the cost goes to step_losses_0.
template <class T>
__global__ void __launch_bounds__(THREADS) record_loss(
    const T* row_losses, T* step_losses, Index* position, const float* loss_scale, Index n, Index rows) {
    double sum = 0;
    for (Index row = threadIdx.x; row < n; row += THREADS) sum += double(row_losses[row]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        step_losses[position ? position[1] : 0] = T(loss_scale ? sum / loss_scale[0] : sum);
        if (position) {
            position[0] += rows;
            position[1] += 1;
        }
    }
}
