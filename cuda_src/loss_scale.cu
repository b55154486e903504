// Dynamic loss scaling for float16 (Micikevicius et al. 2018): the cost is multiplied by a scale, so that small gradients
// are not rounded to 0, and the optimizer divides by it. A step whose gradient overflowed is skipped.
//
// - The device decides; the host does not wait for the result.

#include "vectors.cuh"

// out_r = weight_r · scale; weight may be null, and then is 1.
__global__ void __launch_bounds__(THREADS) scale_rows(const float* weight, const float* scale, float* out, Index n) {
    const Index r = Index(blockIdx.x) * THREADS + threadIdx.x;
    if (r < n) out[r] = (weight ? weight[r] : 1.0f) * scale[0];
}

// norm_0 is the norm of the gradient, multiplied by the scale. If it is finite, gradient_scale_0 removes the scale and
// clips to max_norm, the step counts, and after `interval` such steps in a row the scale grows. Else gradient_scale_0
// is NaN, at which the optimizers' kernels change nothing, and the scale shrinks.
__global__ void adjust_loss_scale(const double* norm, float* scale, long long* good_steps, long long* step,
                                  float* gradient_scale, double max_norm, double factor, double most, long long interval) {
    const double by = scale[0];
    if (isfinite(norm[0])) {
        const double true_norm = norm[0] / by;
        gradient_scale[0] = float((max_norm < true_norm ? max_norm / true_norm : 1.0) / by);
        step[0] += 1;
        good_steps[0] += 1;
        if (good_steps[0] == interval) {
            scale[0] = float(min(by * factor, most));
            good_steps[0] = 0;
        }
    } else {
        gradient_scale[0] = __int_as_float(0x7fc00000);
        scale[0] = float(max(by / factor, 1.0));
        good_steps[0] = 0;
    }
}
