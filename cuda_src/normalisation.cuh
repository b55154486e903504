// What layer and batch normalisation share: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps).
//
// - The backward pass computes x̂ and act' again from x: x, mean and variance are all that the forward pass leaves.
#pragma once

#include "activations.cuh"
#include "vectors.cuh"

// Of a multiprocessor at least, so that a thread may have 128 registers: left alone, the compiler spills to have more.
constexpr int BLOCKS_AT_ONCE = 2;

// One number's way forward, and of its derivative backward. scale = 1 / √(variance + eps).
template <class S> struct Normalised {
    S mean, scale, weight, bias;

    __device__ S standard(S x) const { return (x - mean) * scale; }
    __device__ S affine(S standard) const { return standard * weight + bias; }
};

template <class S> __device__ S scale_of(S variance, S eps) { return S(1) / sqrt(variance + eps); }
