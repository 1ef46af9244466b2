// Softmax of a row of scores as whole numbers, the largest about 2^15: what each key gets of a query's attention.
//
// Traits beyond those of gemm.h:
//   SCALES, above_floor(x), scaled(p, x)   whether there are instructions for x - floor(x) and p * 2^floor(x), and they
#pragma once

#include "int8_head.h"

namespace {

template <class Isa>
struct Shares {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES;
    static constexpr int64_t PAIRED = IntegerHead<Isa>::PAIRED;
    static constexpr float LOG2_MOST = 14.999824f;  // of the largest share, 32764: what rounding adds fits an int16
    static constexpr float MOST_SHARES = 8.4e6f;  // of a row together: times the largest value, an int32 holds it

    // All bits of the lanes before `count`, none of the others.
    static Ints before(int64_t count) {
        Ints lane;
        for (int l = 0; l < LANES; l++) lane[l] = l;
        return lane < static_cast<int32_t>(at_most(count, LANES));
    }

    // Of a row that is readable to whole vectors.
    static float largest(const float* row, int64_t seen) {
        const Floats none = splat<Isa>(-__builtin_inff());
        Floats most = none;
        int64_t i = 0;
        for (; i + LANES <= seen; i += LANES) {
            const Floats v = load<Floats>(row + i);
            most = v > most ? v : most;
        }
        const Floats rest = before(seen - i) ? load<Floats>(row + i) : none;
        return folded<Largest, float>(rest > most ? rest : most);
    }

    // round(2^x) for x <= 15: 2^n times a polynomial fitted by us to a relative error of 7.5e-5.
    static Ints share(Floats x) {
        const auto c = [](float value) { return splat<Isa>(value); };
        Floats y;
        if constexpr (Isa::SCALES) {
            const Floats r = Isa::above_floor(x);  // x less the whole number below it
            Floats p = Isa::fma(r, c(0.078024523f), c(0.22606716f));
            p = Isa::fma(p, r, c(0.69583354f));
            p = Isa::fma(p, r, c(0.99992522f));
            y = Isa::scaled(p, x);  // p * 2^floor(x)
        } else {
            x = x < c(-2.0f) ? c(-2.0f) : x;
            const Floats shifted = x + ROUNDER, r = x - (shifted - ROUNDER);
            Floats p = Isa::fma(r, c(0.05517167f), c(0.24261112f));
            p = Isa::fma(p, r, c(0.69326099f));
            p = Isa::fma(p, r, c(0.99992807f));
            y = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (reinterpret_cast<Ints>(shifted) << 23));
        }
        return reinterpret_cast<Ints>(y + ROUNDER) - ROUNDER_BITS;
    }

    // softmax(factor * row[0 .. seen)) as pairs of shares [round_up(seen, PAIRED) / 2] in the row's own place; what each
    // is to be multiplied by, NaN (and no shares) where scores are not finite. factor: log2(e) included.
    static float shares(float* row, int64_t seen, float factor) {
        const float most = largest(row, seen), top = most * factor;
        const Floats times = splat<Isa>(factor), above = splat<Isa>(LOG2_MOST);
        if (!(top - top == 0.0f)) return __builtin_nanf("");
        const auto of = [&](Floats scores) { return share(Isa::fma(scores - most, times, above)); };
        const auto at = [&](int64_t i) { return of(load<Floats>(row + i)); };
        const auto some = [&](int64_t i) {  // those before `seen`
            const Ints there = before(at_least(seen - i, 0));
            return of(there ? load<Floats>(row + i) : splat<Isa>(most)) & there;
        };
        Ints sum = {};
        const auto put = [&](int64_t i, Ints low, Ints high) {
            sum += low + high;
            const Ints pairs = low | (high << 16);
            memcpy(row + i / 2, &pairs, sizeof pairs);
        };
        int64_t i = 0;
        for (; i + PAIRED <= seen; i += PAIRED) put(i, at(i), at(i + LANES));
        if (i < seen) put(i, some(i), some(i + LANES));
        const float all = folded<Sum, float>(__builtin_convertvector(sum, Floats));
        return 1.0f / (all <= MOST_SHARES ? all : fewer_bits(row, seen, all));
    }

    // Shares of so many keys alike that their sum with values would not fit: halved, rounded, as often as it takes.
    static float fewer_bits(float* row, int64_t seen, float all) {
        int32_t bits = 1;
        while (all / static_cast<float>(1 << bits) + static_cast<float>(seen) / 2 > MOST_SHARES) bits++;
        const int32_t half = 1 << (bits - 1);
        Ints sum = {};
        for (int64_t i = 0; i < seen; i += PAIRED) {
            const Ints pairs = load<Ints>(row + i / 2), low = ((pairs & 0xFFFF) + half) >> bits;
            const Ints high = ((pairs >> 16) + half) >> bits, fewer = low | (high << 16);
            memcpy(row + i / 2, &fewer, sizeof fewer);
            sum += low + high;
        }
        return folded<Sum, float>(__builtin_convertvector(sum, Floats));
    }
};

}  // namespace
