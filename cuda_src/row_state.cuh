// The row state of the softmax and of the all-but-one softmax, and everything that comes from it.
//
// With k = argmax z (the first of several), M₁ = z_k, M₂ = max_{s≠k} z_s and E = Σ_{s≠k} e^{z_s-M₂}:
//
//   q   = e^{M₂-M₁} E = (1-p_k)/p_k     p_k = 1/(1+q)     c_k = 1-p_k = q/(1+q)
//   s_j = e_j/E,  e_j = e^{z_j-M₂}      p_j = s_j c_k     o_j = p_j/(1-p_j) = e_j/(E/c_k - e_j)        j ≠ k
//   where E/c_k = (1+q) / e^{M₂-M₁}
//
// Nothing here forms 1 - p_k, and p_j ≤ ½ for j ≠ k, so nothing cancels in o_j.
#pragma once

#include "vectors.cuh"

constexpr int NO_COLUMN = 0x7fffffff;

// NVRTC knows neither INFINITY nor NAN.
template <class C> __device__ C infinity() { return C(__int_as_float(0x7f800000)); }
template <class C> __device__ C not_a_number() { return C(__int_as_float(0x7fc00000)); }

// e^x for one logit stored as S. The fast one is good to 2⁻²¹ of the largest term, far below a 16-bit type's rounding.
template <class S> __device__ Compute<S> exp_of(Compute<S> x) { return exp(x); }
template <> __device__ inline float exp_of<__half>(float x) { return __expf(x); }
template <> __device__ inline float exp_of<__nv_bfloat16>(float x) { return __expf(x); }

// Right to 2 ulp for every denominator up to 2¹²⁶, and 0 beyond, where the quotient is below the smallest normal number.
__device__ inline float quotient(float numerator, float denominator) { return __fdividef(numerator, denominator); }
__device__ inline double quotient(double numerator, double denominator) { return numerator / denominator; }

// weight · value, where 0 · ∞ is 0.
template <class C> __device__ C times(C weight, C value) { return weight == 0 ? C(0) : weight * value; }

// The two largest logits of a part of a row. A NaN leaves both as they are, or makes them equal: the mass will tell.
template <class C> struct Maxima {
    C first, second;

    __device__ static Maxima none() { return {-infinity<C>(), -infinity<C>()}; }

    __device__ void add(C z) {
        second = fmax(second, fmin(first, z));
        first = fmax(first, z);
    }

    __device__ void merge(const Maxima& other) {
        second = fmax(fmax(second, other.second), fmin(first, other.first));
        first = fmax(first, other.first);
    }
};

// What M₂ stands for in e^{z-M₂} where every class but k is masked.
template <class C> __device__ C reference(C second) { return second == -infinity<C>() ? C(0) : second; }

// (M₁, k, M₂, E) of a part of a row, for rows that are read before their maxima are known.
template <class C> struct RowState {
    C first, second, mass;
    int k;

    __device__ static RowState none() { return {-infinity<C>(), -infinity<C>(), C(0), NO_COLUMN}; }

    // Make `higher` ≥ M₂ the new M₂.
    __device__ void raise(C higher) {
        if (higher > second) {
            mass *= exp(second - higher);
            second = higher;
        }
    }

    // One more logit, to the right of all before it.
    __device__ void add(C z, int column) {
        C rest = z;  // the one of z and M₁ that counts into the mass
        if (z > first) {
            rest = first;
            first = z;
            k = column;
        }
        raise(rest);
        mass += exp(rest - reference(second));
    }

    // Neighbouring logits to the right of all before them: one exponential each, unless one of them is a new maximum.
    template <class S, int N> __device__ void add_all(const C (&z)[N], int column) {
        C largest = z[0];
#pragma unroll
        for (int i = 1; i < N; ++i) largest = fmax(largest, z[i]);
        if (largest > first) {
#pragma unroll
            for (int i = 0; i < N; ++i) add(z[i], column + i);
            return;
        }
        raise(largest);
        const C origin = reference(second);
        C sum = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) sum += exp_of<S>(z[i] - origin);
        mass += sum;
    }

    // The loser's maximum joins the others.
    __device__ void merge(const RowState& other) {
        const bool wins = other.first > first || (other.first == first && other.k < k);
        const C rest = wins ? first : other.first, higher = fmax(fmax(second, other.second), rest);
        const C origin = reference(higher);
        // A part without a second logit has no mass, or that of a NaN; its factor 0 leaves either.
        mass = mass * exp(second - origin) + other.mass * exp(other.second - origin) + exp(rest - origin);
        if (wins) {
            first = other.first;
            k = other.k;
        }
        second = higher;
    }
};

// All that a row's outputs are made of. settle() takes the maxima, complete() the mass, and then
// there are odds; conclude() adds the rest.
//
// A class with logit -inf has p = 0; so have all classes of a row that holds nothing else, and there M₁ counts as 0. A
// row with NaN or +inf is NaN throughout.
template <class C> struct Row {
    C first, second;  // M₁ and M₂, both 0 where they are -inf
    C gap, ratio;     // M₂-M₁, and e to that power
    C mass, q, limit;  // E, (1-p_k)/p_k and E/c_k
    C p_k, c_k, log1p_q;
    bool lone, empty;  // at most one class is not masked; none is

    __device__ void settle(C maximum, C runner_up) {
        lone = runner_up == -infinity<C>();
        empty = maximum == -infinity<C>();
        first = reference(maximum);
        second = reference(runner_up);
        gap = empty ? C(0) : runner_up - maximum;
        ratio = 0;
        if (!lone && gap > -infinity<C>()) {
            // The rounding error of M₂-M₁ made good: at a difference of -80 it would cost the power its last six bits.
            const C virtual_first = gap - runner_up;
            const C error = (runner_up - (gap - virtual_first)) - (maximum + virtual_first);
            const C power = exp(gap);
            ratio = power + power * error;
        }
        if (!(maximum < infinity<C>())) gap = ratio = not_a_number<C>();
    }

    __device__ void complete(C sum) {
        mass = lone && sum == 0 ? C(1) : sum;
        q = ratio * mass;
        limit = (1 + q) / ratio;
    }

    // The rest, when the odds are summed up: what is not held meanwhile leaves its registers to the row.
    __device__ void conclude() {
        p_k = empty && q == 0 ? C(0) : 1 / (1 + q);
        c_k = q / (1 + q);
        log1p_q = log1p(q);
    }

    // o_j of e_j, j ≠ k.
    __device__ C odds(C e) const { return quotient(e, limit - e); }

    // ln(1-p_k) = ln q - ln(1+q), which would cancel where q is large; and where q is 0, its logarithm need not be -∞.
    __device__ C log1m_p_k() const { return q >= 1 ? -log1p(1 / q) : gap + log(mass) - log1p_q; }
};
