// What layer and batch normalisation share: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps).
//
// - The backward pass recomputes x̂ and act' from x: the forward pass keeps x, mean and variance only.
#pragma once

#include "activations.cuh"
#include "vectors.cuh"

// Minimum of resident blocks on a multiprocessor, so that a thread may have 128 registers. By itself the compiler
// spills to fit more blocks.
constexpr int MIN_BLOCKS = 2;

// The parameters of one row or column. scale = 1 / √(variance + eps).
template <class S> struct NormParams {
    S mean, scale, weight, bias;

    __device__ S standardised(S x) const { return (x - mean) * scale; }
    __device__ S affine(S standardised) const { return standardised * weight + bias; }
};

template <class S> __device__ S scale_of(S variance, S eps) { return S(1) / sqrt(variance + eps); }
