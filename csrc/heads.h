// What happens to queries and keys between their product and attention: a norm of each head, and rotary position
// embeddings (Su et al., arXiv:2104.09864). For the unnamed namespace see quantize.h.
#pragma once

#include "vectors.h"

namespace {

// The norm of one head, in place.
template <class Isa>
void normalize_head(const Heads& job, float* x) {
    using Floats = typename Isa::Floats;
    const int64_t dim = job.dim;
    Floats sum = {}, squares = {};
    for (int64_t i = 0; i < dim && job.centered; i += Isa::LANES) sum += load_some<Isa>(x + i, dim - i);
    const float middle = sum_of<Isa>(sum) / static_cast<float>(dim);
    const Floats mean = splat<Isa>(middle);
    int64_t i = 0;
    for (; i + Isa::LANES <= dim; i += Isa::LANES) {
        const Floats deviation = load<Floats>(x + i) - mean;
        squares = Isa::fma(deviation, deviation, squares);
    }
    float rest = 0.0f;
    for (; i < dim; i++) rest += (x[i] - middle) * (x[i] - middle);
    const float variance = (sum_of<Isa>(squares) + rest) / static_cast<float>(dim);
    const Floats inverse = splat<Isa>(1.0f / __builtin_sqrtf(variance + job.eps));
    for (i = 0; i < dim; i += Isa::LANES) {
        const Floats normal = (load_some<Isa>(x + i, dim - i) - mean) * inverse;
        const Floats bias = job.bias ? load_some<Isa>(job.bias + i, dim - i) : Floats{};
        store_some<Isa>(x + i, Isa::fma(normal, load_some<Isa>(job.weight + i, dim - i), bias), dim - i);
    }
}

// Number i with number i + dim / 2. Each rounding is torch's.
template <class Isa>
void rotate_halves(const Heads& job, float* x) {
    using Floats = typename Isa::Floats;
    const int64_t half = job.dim / 2;
    for (int64_t i = 0; i < half; i += Isa::LANES) {
        const int64_t left = half - i, j = i + half;
        const Floats a = load_some<Isa>(x + i, left), b = load_some<Isa>(x + j, left);
        const Floats first = a * load_some<Isa>(job.cos + i, left) - b * load_some<Isa>(job.sin + i, left);
        const Floats second = b * load_some<Isa>(job.cos + j, left) + a * load_some<Isa>(job.sin + j, left);
        store_some<Isa>(x + i, first, left);
        store_some<Isa>(x + j, second, left);
    }
}

// Number 2i with number 2i + 1.
template <class Isa>
void rotate_pairs(const Heads& job, float* x) {
    using Floats = typename Isa::Floats;
    typedef uint64_t Pairs __attribute__((vector_size(sizeof(Floats))));
    for (int64_t i = 0; i < job.dim; i += Isa::LANES) {
        const int64_t left = job.dim - i;
        const Floats a = load_some<Isa>(x + i, left);
        const Pairs pairs = reinterpret_cast<Pairs>(a);
        // Both numbers of a pair change places; the first of them is then negated (processors here are little-endian).
        const Pairs turned = ((pairs << 32) | (pairs >> 32)) ^ (Pairs{} + 0x80000000u);
        const Floats b = reinterpret_cast<Floats>(turned);
        store_some<Isa>(x + i, a * load_some<Isa>(job.cos + i, left) + b * load_some<Isa>(job.sin + i, left), left);
    }
}

template <class Isa>
void turn(const Heads& job) {
    for (int64_t h = 0; h < job.heads; h++) {
        float* x = job.x + h * job.dim;
        if (job.weight) normalize_head<Isa>(job, x);
        if (job.cos && job.rotation == CLIPQ_ROTATE_HALVES) rotate_halves<Isa>(job, x);
        if (job.cos && job.rotation == CLIPQ_ROTATE_PAIRS) rotate_pairs<Isa>(job, x);
    }
}

}  // namespace
