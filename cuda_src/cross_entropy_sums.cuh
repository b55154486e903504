// The sums over the classes of a row that the cross entropy needs besides the row state, each with the merge() of
// row_group.cuh. The Uniform ones leave out the factors A_t and B_t where all classes but two share them.
#pragma once

#include "vectors.cuh"

// Σ_{t≠k} (M₁-z_t).
template <class C> struct UniformGaps {
    C gap_sum;
    __device__ void merge(const UniformGaps& other) { gap_sum += other.gap_sum; }
};

// Σ A_t (M₁-z_t) and Σ_{t≠k} A_t.
template <class C> struct ClassWeightedGaps {
    C gap_sum, a_others;
    __device__ void merge(const ClassWeightedGaps& other) {
        gap_sum += other.gap_sum;
        a_others += other.a_others;
    }
};

// Σ_{t≠k} B_t o_t and Σ_{t≠k} B_t log1p(o_t).
template <class C> struct ClassWeightedOdds {
    C odds, log1p_odds;
    __device__ void merge(const ClassWeightedOdds& other) {
        odds += other.odds;
        log1p_odds += other.log1p_odds;
    }
};

// Σ_{t≠k} o_t, and Π_{t≠k} (1+o_t) - 1, whose log1p is Σ log1p(o_t). Its terms are positive and it stays below 3.
template <class C> struct UniformOdds {
    C odds, product;
    __device__ void merge(const UniformOdds& other) {
        odds += other.odds;
        product = fma(product, other.product, product + other.product);
    }
};
