// Per-row dynamic quantization. The definition is clipq/functional.py; the order and kind of each rounding here is the
// same. Written with the compilers' vector extensions (GCC and Clang), which work at any width on any processor.
//
// Everything sits in an unnamed namespace, and nothing from std:: with code in it is used: this header is compiled once
// per instruction set, and a function with external linkage would be merged by the linker across them, so that a
// baseline processor could be handed AVX-512 code.
#pragma once

#include <cstring>

#include "kernel.h"

namespace {

using namespace clipq;

// `Isa` gives LANES and the vectors Ints and Floats (see gemm.h); Act is the type of a quantized value, q + OFFSET.
template <class Isa, class Act, int OFFSET>
struct Quantizer {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES;
    typedef Act Narrow __attribute__((vector_size(LANES * sizeof(Act))));

    // Values [i, i + LANES) of a row of k, zeros beyond it.
    static Floats load(const float* x, int64_t i, int64_t k) {
        Floats v = {};
        if (i + LANES <= k)
            memcpy(&v, x + i, sizeof v);
        else
            memcpy(&v, x + i, sizeof(float) * static_cast<size_t>(k - i));
        return v;
    }

    struct Range {
        float low, high;
        bool has_nan;
    };

    static Range range_of(const float* x, int64_t k) {
        Floats low = {}, high = {};  // from 0: the range always includes it
        Ints nan = {};
        for (int64_t i = 0; i < k; i += LANES) {
            const Floats v = load(x, i, k);
            low = v < low ? v : low;
            high = v > high ? v : high;
            nan |= v != v;
        }
        Range all = {0.0f, 0.0f, false};
        for (int l = 0; l < LANES; l++) {
            all.low = low[l] < all.low ? low[l] : all.low;
            all.high = high[l] > all.high ? high[l] : all.high;
            all.has_nan |= nan[l] != 0;
        }
        return all;
    }

    // Adding 1.5 * 2^23 to |v| < 2^22 rounds it to the nearest whole number, ties to even, in the low bits of the sum:
    // the same as torch.round, without needing an instruction for it.
    static constexpr float ROUNDER = 12582912.0f;
    static constexpr int32_t ROUNDER_BITS = 0x4B400000;

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

    // Quantizes a row into k elements of `out` and fills the rest of `width` with zeros.
    static void row(const float* x, int64_t k, bool symmetric, Act* out, int64_t width, float* scale,
                    int32_t* zero_point) {
        const float s = *scale = choose(range_of(x, k), symmetric, zero_point);
        memset(out + k, 0, sizeof(Act) * static_cast<size_t>(width - k));
        if (s != s) {
            memset(out, 0, sizeof(Act) * static_cast<size_t>(k));
            return;
        }
        const Ints low = Ints{} + (symmetric ? -127 : -128), high = Ints{} + 127;
        for (int64_t i = 0; i < k; i += LANES) {
            Ints q = reinterpret_cast<Ints>(load(x, i, k) / s + ROUNDER) + (*zero_point - ROUNDER_BITS);
            q = q < low ? low : q;
            q = q > high ? high : q;
            const Narrow narrow = __builtin_convertvector(q + OFFSET, Narrow);
            memcpy(out + i, &narrow, i + LANES <= k ? sizeof narrow : sizeof(Act) * static_cast<size_t>(k - i));
        }
    }
};

}  // namespace
