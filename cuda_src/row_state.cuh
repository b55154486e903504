// The row state of the softmax and of the all-but-one softmax, and the quantities that follow from it (README.md derives
// them).
//
// With k = argmax z (the first of several), M₁ = z_k, M₂ = max_{s≠k} z_s and E = Σ_{s≠k} e^{z_s-M₂}:
//
//   q   = e^{M₂-M₁} E = (1-p_k)/p_k     p_k = 1/(1+q)     c_k = 1-p_k = q/(1+q)
//   s_j = e_j/E,  e_j = e^{z_j-M₂}      p_j = s_j c_k     o_j = p_j/(1-p_j) = e_j/(E/c_k - e_j)        j ≠ k
//   where E/c_k = (1+q) / e^{M₂-M₁}
//
// Nothing here computes 1 - p_k, and p_j ≤ ½ for j ≠ k, so nothing cancels in o_j.
//
// TopTwo           M₁ and M₂ of a part of a row
// PartialRowState  (M₁, k, M₂, E) of a part of a row, for rows that are read in several passes
// RowState         the state of a whole row, with q, p_k, c_k and the odds
#pragma once

#include "vectors.cuh"

constexpr int NO_COLUMN = 0x7fffffff;

// NVRTC declares neither INFINITY nor NAN.
template <class C> __device__ C infinity() { return C(__int_as_float(0x7f800000)); }
template <class C> __device__ C not_a_number() { return C(__int_as_float(0x7fc00000)); }

// e^x for one logit stored as S. __expf errs by 2⁻²¹ of the largest term, far less than a 16-bit type's rounding.
template <class S> __device__ Compute<S> exp_of(Compute<S> x) { return exp(x); }
template <> __device__ inline float exp_of<__half>(float x) { return __expf(x); }
template <> __device__ inline float exp_of<__nv_bfloat16>(float x) { return __expf(x); }

// __fdividef errs by 2 ulp for denominators up to 2¹²⁶; beyond, it returns 0, and the quotient would be subnormal.
__device__ inline float divide(float numerator, float denominator) { return __fdividef(numerator, denominator); }
__device__ inline double divide(double numerator, double denominator) { return numerator / denominator; }

// weight · value, where 0 · ∞ is 0.
template <class C> __device__ C zero_safe_product(C weight, C value) { return weight == 0 ? C(0) : weight * value; }

// The two largest logits of a part of a row. A NaN leaves both as they are, or makes them equal; E becomes NaN then.
template <class C> struct TopTwo {
    C first, second;

    __device__ static TopTwo none() { return {-infinity<C>(), -infinity<C>()}; }

    __device__ void add(C z) {
        second = fmax(second, fmin(first, z));
        first = fmax(first, z);
    }

    __device__ void merge(const TopTwo& other) {
        second = fmax(fmax(second, other.second), fmin(first, other.first));
        first = fmax(first, other.first);
    }
};

// M₂ in e^{z-M₂}; 0 where every class but k is masked.
template <class C> __device__ C shift_of(C second) { return second == -infinity<C>() ? C(0) : second; }

// (M₁, k, M₂, E) of a part of a row, for rows that are read before their maxima are known.
template <class C> struct PartialRowState {
    C first, second, sum_exp;
    int k;

    __device__ static PartialRowState none() { return {-infinity<C>(), -infinity<C>(), C(0), NO_COLUMN}; }

    // Makes `higher` ≥ M₂ the new M₂ and rescales E.
    __device__ void raise_second(C higher) {
        if (higher > second) {
            sum_exp *= exp(second - higher);
            second = higher;
        }
    }

    // Adds a logit to the right of all before it.
    __device__ void add(C z, int column) {
        C rest = z;  // the smaller of z and M₁, which counts into E
        if (z > first) {
            rest = first;
            first = z;
            k = column;
        }
        raise_second(rest);
        sum_exp += exp(rest - shift_of(second));
    }

    // Adds neighbouring logits to the right of all before them: one exponential each, unless one is a new maximum.
    template <class S, int N> __device__ void add_all(const C (&z)[N], int column) {
        C largest = z[0];
#pragma unroll
        for (int i = 1; i < N; ++i) largest = fmax(largest, z[i]);
        if (largest > first) {
#pragma unroll
            for (int i = 0; i < N; ++i) add(z[i], column + i);
            return;
        }
        raise_second(largest);
        const C shift = shift_of(second);
        C sum = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) sum += exp_of<S>(z[i] - shift);
        sum_exp += sum;
    }

    // Merges two parts: the smaller of the two maxima counts into E, and each E is rescaled to the common M₂.
    __device__ void merge(const PartialRowState& other) {
        const bool wins = other.first > first || (other.first == first && other.k < k);
        const C rest = wins ? first : other.first, higher = fmax(fmax(second, other.second), rest);
        const C shift = shift_of(higher);
        // A part without a second logit has E = 0, or NaN; the factor 0 preserves both.
        sum_exp = sum_exp * exp(second - shift) + other.sum_exp * exp(other.second - shift) + exp(rest - shift);
        if (wins) {
            first = other.first;
            k = other.k;
        }
        second = higher;
    }
};

// The state of a whole row. Callers set it in this order: set_maxima(), set_sum_exp(), after which odds() may be
// called, and set_probabilities().
//
// A class with logit -inf is masked and has p = 0. In a row of nothing but -inf every p is 0, and M₁ counts as 0. A row
// with NaN or +inf is NaN throughout.
template <class C> struct RowState {
    C first, second;  // M₁ and M₂, both 0 where they are -inf
    C max_gap, exp_gap;        // M₂-M₁ and e^{M₂-M₁}
    C sum_exp, q, odds_limit;  // E, (1-p_k)/p_k and E/c_k
    C p_k, c_k, log1p_q;
    bool single, empty;  // at most one class is not masked; all are masked

    __device__ void set_maxima(C maximum, C runner_up) {
        single = runner_up == -infinity<C>();
        empty = maximum == -infinity<C>();
        first = shift_of(maximum);
        second = shift_of(runner_up);
        max_gap = empty ? C(0) : runner_up - maximum;
        exp_gap = 0;
        if (!single && max_gap > -infinity<C>()) {
            // Compensates the rounding error of M₂-M₁: at a difference of -80 it would cost e^{M₂-M₁} its last six bits.
            const C virtual_first = max_gap - runner_up;
            const C error = (runner_up - (max_gap - virtual_first)) - (maximum + virtual_first);
            const C power = exp(max_gap);
            exp_gap = power + power * error;
        }
        if (!(maximum < infinity<C>())) max_gap = exp_gap = not_a_number<C>();
    }

    __device__ void set_sum_exp(C sum) {
        sum_exp = single && sum == 0 ? C(1) : sum;
        q = exp_gap * sum_exp;
        odds_limit = (1 + q) / exp_gap;
    }

    // Set only after the odds are summed up, so that these values take no registers before.
    __device__ void set_probabilities() {
        p_k = empty && q == 0 ? C(0) : 1 / (1 + q);
        c_k = q / (1 + q);
        log1p_q = log1p(q);
    }

    // o_j of e_j, j ≠ k.
    __device__ C odds(C e) const { return divide(e, odds_limit - e); }

    // ln(1-p_k) = ln q - ln(1+q). That cancels where q ≥ 1; and q may underflow to 0 where ln q is still finite.
    __device__ C log1m_p_k() const { return q >= 1 ? -log1p(1 / q) : max_gap + log(sum_exp) - log1p_q; }
};
