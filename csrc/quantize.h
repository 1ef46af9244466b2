// Quantization of rows, by their own range or a given one. The definition is clipq/arithmetic/functional.py; the order and kind of each rounding here is the
// same. Written with the compilers' vector extensions (GCC and Clang), which work at any width on any processor.
//
// Everything sits in an unnamed namespace, and nothing from std:: with code in it is used: this header is compiled once
// per instruction set, and a function with external linkage would be merged by the linker across them, so that a
// baseline processor could be handed AVX-512 code.
#pragma once

#include "vectors.h"

namespace {

// A row of floats as it is: whole vectors, and what is left at its end with zeros after it.
template <class Isa>
struct PlainRow {
    using Floats = typename Isa::Floats;
    const float* x;
    int64_t k;

    Floats whole(int64_t i) const { return load<Floats>(x + i); }
    Floats tail(int64_t i) const { return load_some<Isa>(x + i, k - i); }
};

// The LayerNorm of a row (Ba et al., arXiv:1607.06450), or its RMSNorm (Zhang and Sennrich, arXiv:1910.07467) about a mean
// of 0, computed anew wherever it is read: cheaper than storing it.
template <class Isa>
struct NormalizedRow {
    using Floats = typename Isa::Floats;
    const float* x;
    int64_t k;
    const float *weight, *bias;
    Floats mean, inverse;

    NormalizedRow(const Source& source, int64_t row)
        : x(source.x + row * source.ldx), k(source.k), weight(source.weight), bias(source.bias) {
        constexpr int LANES = Isa::LANES, CHAINS = 4;  // sums side by side: one alone waits for each addition
        Floats sums[CHAINS] = {}, squares[CHAINS] = {};
        int64_t i = 0;
        float rest = 0.0f, middle = 0.0f;
        if (source.centered) {
            for (; i + CHAINS * LANES <= k; i += CHAINS * LANES)
                for (int c = 0; c < CHAINS; c++) sums[c] += load<Floats>(x + i + c * LANES);
            for (; i + LANES <= k; i += LANES) sums[0] += load<Floats>(x + i);
            for (int64_t j = i; j < k; j++) rest += x[j];
            const Floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            middle = (sum_of<Isa>(sum) + rest) / static_cast<float>(k);
        }
        mean = splat<Isa>(middle);
        const auto add = [&](int64_t at, Floats& to) {
            const Floats deviation = load<Floats>(x + at) - mean;
            to = Isa::fma(deviation, deviation, to);
        };
        for (i = 0; i + CHAINS * LANES <= k; i += CHAINS * LANES)
            for (int c = 0; c < CHAINS; c++) add(i + c * LANES, squares[c]);
        for (; i + LANES <= k; i += LANES) add(i, squares[0]);
        const Floats square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
        rest = 0.0f;
        for (; i < k; i++) rest += (x[i] - middle) * (x[i] - middle);
        const float variance = (sum_of<Isa>(square) + rest) / static_cast<float>(k);
        inverse = splat<Isa>(1.0f / __builtin_sqrtf(variance + source.eps));
    }

    Floats whole(int64_t i) const {
        return Isa::fma((load<Floats>(x + i) - mean) * inverse, load<Floats>(weight + i), load<Floats>(bias + i));
    }
    // Zero beyond the row, because the weight and the bias are.
    Floats tail(int64_t i) const {
        const Floats normal = (load_some<Isa>(x + i, k - i) - mean) * inverse;
        return Isa::fma(normal, load_some<Isa>(weight + i, k - i), load_some<Isa>(bias + i, k - i));
    }
};

// `Isa` gives LANES and the vectors Ints and Floats (see gemm.h); Act is the type of a quantized value, q + OFFSET.
template <class Isa, class Act, int OFFSET>
struct Quantizer {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES;
    typedef Act Narrow __attribute__((vector_size(LANES * sizeof(Act))));

    struct Range {
        float low, high;
        bool has_nan;
    };

    template <class Row>
    static Range range_of(const Row& row) {
        Floats low = {}, high = {};  // from 0: the range always includes it
        Ints nan = {};
        const auto take = [&](Floats v) {
            low = v < low ? v : low;
            high = v > high ? v : high;
            nan |= v != v;
        };
        int64_t i = 0;
        for (; i + LANES <= row.k; i += LANES) take(row.whole(i));
        if (i < row.k) take(row.tail(i));
        return {folded<Least, float>(low), folded<Largest, float>(high), folded<Least, int32_t>(nan) != 0};
    }

    // The scale of a row, NaN if it holds a NaN or an infinity (or its range overflows), and the zero point.
    static float choose(const Range& range, bool symmetric, int32_t* zero_point) {
        constexpr float smallest = 1.17549435e-38f, largest = 3.402823466e38f;
        const float reach = -range.low > range.high ? -range.low : range.high;
        float scale = symmetric ? reach / 127.0f : (range.high - range.low) / 255.0f;
        *zero_point = 0;
        if (range.has_nan || !(scale <= largest)) return __builtin_nanf("");
        scale = scale == 0.0f ? 1.0f : scale < smallest ? smallest : scale;
        if (symmetric) return scale;
        const int32_t zp = -128 - static_cast<int32_t>(range.low / scale + ROUNDER - ROUNDER);
        *zero_point = zp > 127 ? 127 : zp;
        return scale;
    }

    // Maps values to what is stored for them.
    struct Rounding {
        Floats scale, reciprocal;
        Ints shift, low, high;
        bool divides;
        Floats least, most;

        Rounding(float s, int32_t zero_point, bool symmetric)
            : scale(splat<Isa>(s)), reciprocal(splat<Isa>(1.0f / s)), shift(Ints{} + (zero_point - ROUNDER_BITS)),
              low(Ints{} + (symmetric ? -127 : -128)), high(Ints{} + 127),
              divides(!Isa::FUSED || s < 1e-30f || s > 1e37f),  // the remainder below, the reciprocal would underflow
              least(splat<Isa>(s * static_cast<float>((symmetric ? -128 : -129) - zero_point))),
              most(splat<Isa>(s * static_cast<float>(128 - zero_point))) {}

        // Where a step beyond the range begins, and more would not fit the rounding; NaN stays.
        Floats within(Floats x) const {
            x = x < least ? least : x;
            return x > most ? most : x;
        }

        // x / s, rounded once: where the processor multiplies and adds in one rounding, from the reciprocal and a
        // correction (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990),
        // at a fraction of a division's cost.
        Floats quotient(Floats x) const {
            if (divides) return x / scale;
            const Floats guess = x * reciprocal;
            return Isa::fma(Isa::fma(-scale, guess, x), reciprocal, guess);
        }

        static Narrow narrowed(Ints q) {
            if constexpr (Isa::NARROWS && sizeof(Act) == sizeof(typename Isa::Act) && OFFSET == Isa::OFFSET) {
                return Isa::narrowed(q);
            } else {
                return __builtin_convertvector(q, Narrow);
            }
        }

        Narrow operator()(Floats x) const {
            Ints q = reinterpret_cast<Ints>(quotient(x) + ROUNDER) + shift;
            q = q < low ? low : q;
            q = q > high ? high : q;
            return narrowed(q + OFFSET);
        }
    };

    // Rounds k values into `out`; of a GIVEN range, which the values may leave, whether all were finite.
    template <bool GIVEN, class Row>
    static bool round_all(const Row& row, const Rounding& rounded, Act* out) {
        const int64_t k = row.k;
        Ints odd = {};
        const auto taken = [&](Floats x) {
            if constexpr (GIVEN) {
                const Floats nothing = x - x;  // NaN of a NaN and of an infinity
                odd |= nothing != nothing;
                x = rounded.within(x);
            }
            return rounded(x);
        };
        int64_t i = 0;
        for (; i + LANES <= k; i += LANES) {
            const Narrow q = taken(row.whole(i));
            memcpy(out + i, &q, sizeof q);
        }
        if (i < k) {
            const Narrow q = taken(row.tail(i));
            memcpy(out + i, &q, sizeof(Act) * static_cast<size_t>(k - i));
        }
        int32_t any = 0;
        for (int l = 0; GIVEN && l < LANES; l++) any |= odd[l];
        return any == 0;
    }

    // Quantizes a row into k elements of `out` and fills the rest of `width` with zeros.
    template <class Row>
    static void row(const Row& row, const Grid& grid, Act* out, int64_t width, float* scale, int32_t* zero_point) {
        memset(out + row.k, 0, sizeof(Act) * static_cast<size_t>(width - row.k));
        if (grid.scale == 0.0f) {
            const float s = *scale = choose(range_of(row), grid.symmetric, zero_point);
            if (s == s) {
                round_all<false>(row, Rounding(s, *zero_point, grid.symmetric), out);
                return;
            }
        } else {
            *scale = grid.scale;
            *zero_point = grid.zero_point;
            if (round_all<true>(row, Rounding(grid.scale, grid.zero_point, grid.symmetric), out)) return;
            *scale = __builtin_nanf("");
            *zero_point = 0;
        }
        memset(out, 0, sizeof(Act) * static_cast<size_t>(row.k));
    }

    static void row(const Source& source, int64_t i, const Grid& grid, Act* out, int64_t width, float* scale,
                    int32_t* zero_point) {
        if (source.eps >= 0)
            row(NormalizedRow<Isa>(source, i), grid, out, width, scale, zero_point);
        else
            row(PlainRow<Isa>{source.x + i * source.ldx, source.k}, grid, out, width, scale, zero_point);
    }
};

}  // namespace
