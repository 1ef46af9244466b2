// Vector helpers over an `Isa` of traits (see gemm.h): loads with tails, sums, the exponential, the activations.
// For the unnamed namespace see quantize.h.
#pragma once

#include <cstring>

#include "clipq.h"
#include "kernel.h"

namespace {

using namespace clipq;

template <class Vector, class Value>
Vector load(const Value* from) {
    Vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

// x in every lane. Compilers drop a subtraction of zero, but not an addition of it, which would turn -0 into 0.
template <class Isa>
typename Isa::Floats splat(float x) {
    return x - typename Isa::Floats{};
}

// The next min(LANES, left) floats, zeros after them.
template <class Isa>
typename Isa::Floats load_some(const float* from, int64_t left) {
    if (left >= Isa::LANES) return load<typename Isa::Floats>(from);
    typename Isa::Floats v = {};
    memcpy(&v, from, sizeof(float) * static_cast<size_t>(left));
    return v;
}

// The first min(LANES, left) floats of a vector.
template <class Isa>
void store_some(float* to, typename Isa::Floats v, int64_t left) {
    memcpy(to, &v, left >= Isa::LANES ? sizeof v : sizeof(float) * static_cast<size_t>(left));
}

// How the lanes of a vector become one.
struct Sum {
    template <class V>
    static V of(V a, V b) { return a + b; }
};
struct Least {
    template <class V>
    static V of(V a, V b) { return a < b ? a : b; }
};
struct Largest {
    template <class V>
    static V of(V a, V b) { return a > b ? a : b; }
};

// N values as one, a half with a half.
template <class Join, class T, int N>
struct Folded {
    typedef T Half __attribute__((vector_size(sizeof(T) * N / 2)));

    static T of(const T* from) {
        Half a, b;
        memcpy(&a, from, sizeof a);
        memcpy(&b, from + N / 2, sizeof b);
        const Half both = Join::of(a, b);
        T values[N / 2];
        memcpy(values, &both, sizeof both);
        if constexpr (N > 4)
            return Folded<Join, T, N / 2>::of(values);
        else
            return Join::of(values[0], values[1]);
    }
};

// The lanes of `v` as one. Not inline: there GCC keeps the vector in memory throughout the loop before it, at half the
// speed.
template <class Join, class T, class Vector>
__attribute__((noinline)) T folded(Vector v) {
    constexpr int LANES = sizeof v / sizeof(T);
    T each[LANES];
    memcpy(each, &v, sizeof v);
    return Folded<Join, T, LANES>::of(each);
}

template <class Isa>
float sum_of(typename Isa::Floats v) {
    return folded<Sum, float>(v);
}

// Adding 1.5 * 2^23 to |v| < 2^22 rounds it to the nearest whole number, ties to even, in the low bits of the sum:
// the same as torch.round, without needing an instruction for it.
constexpr float ROUNDER = 12582912.0f;
constexpr int32_t ROUNDER_BITS = 0x4B400000;

// e^x, within 2 units in the last place for x in [-87, 88] and beyond as at those ends: 2^n times a polynomial on
// [-ln 2 / 2, ln 2 / 2] (fitted by us to a relative error of 2e-9).
template <class Isa>
typename Isa::Floats exponential(typename Isa::Floats x) {
    using Floats = typename Isa::Floats;
    using Ints = typename Isa::Ints;
    const auto c = [](float value) { return splat<Isa>(value); };
    x = x < c(-87.0f) ? c(-87.0f) : x;
    x = x > c(88.0f) ? c(88.0f) : x;
    const Floats shifted = Isa::fma(x, c(1.44269504f), c(ROUNDER)), n = shifted - ROUNDER;
    const Floats r = Isa::fma(n, c(2.12194440e-4f), Isa::fma(n, c(-0.693359375f), x));  // ln 2 in two parts
    Floats p = Isa::fma(r, c(0.0013836792f), c(0.008374857f));
    p = Isa::fma(p, r, c(0.041668229f));
    p = Isa::fma(p, r, c(0.1666642f));
    p = Isa::fma(p, r, c(0.49999992f));
    p = Isa::fma(p, r, c(1.0f));
    p = Isa::fma(p, r, c(1.0f));
    const Ints power = ((reinterpret_cast<Ints>(shifted) - ROUNDER_BITS) << 23) + 0x3F800000;
    return p * reinterpret_cast<Floats>(power);
}

// x / (1 + e^-y)
template <class Isa>
typename Isa::Floats gated(typename Isa::Floats x, typename Isa::Floats y) {
    return x / (exponential<Isa>(-y) + 1.0f);
}

// x / 2 + x / 2 * erf(x / sqrt 2), where erf(x / sqrt 2) is x times a quotient of two polynomials in x^2, fitted by us
// on [-5.6, 5.6] to 2e-8. Beyond, it is 1 or -1 in float32.
template <class Isa>
typename Isa::Floats gelu(typename Isa::Floats x) {
    using Floats = typename Isa::Floats;
    const auto c = [](float value) { return splat<Isa>(value); };
    Floats z = x < c(-5.6f) ? c(-5.6f) : x;
    z = z > c(5.6f) ? c(5.6f) : z;
    const Floats u = z * z, half = x * 0.5f;
    Floats p = Isa::fma(u, c(4.42906333e-8f), c(1.27130822e-5f));
    Floats q = Isa::fma(u, c(1.18021278e-6f), c(7.51021166e-5f));
    p = Isa::fma(p, u, c(3.47702469e-4f));
    q = Isa::fma(q, u, c(1.91298095e-3f));
    p = Isa::fma(p, u, c(9.41452486e-3f));
    q = Isa::fma(q, u, c(2.89401132e-2f));
    p = Isa::fma(p, u, c(6.87522995e-2f));
    q = Isa::fma(q, u, c(0.252833942f));
    p = Isa::fma(p, u, c(0.797884443f));
    q = Isa::fma(q, u, c(1.0f));
    const Floats y = Isa::fma(half, z * p / q, half);
    return x < c(-5.6f) ? Floats{} : y;
}

template <class Isa>
typename Isa::Floats gelu_tanh(typename Isa::Floats x) {
    return gated<Isa>(x, x * 1.5957691216f * (x * x * 0.044715f + 1.0f));
}

template <class Isa>
typename Isa::Floats quick_gelu(typename Isa::Floats x) {
    return gated<Isa>(x, x * 1.702f);
}

template <class Isa>
typename Isa::Floats silu(typename Isa::Floats x) {
    return gated<Isa>(x, x);
}

}  // namespace
