// Any processor: plain loops, small enough for a compiler to keep in registers. Simple and right rather than fast.
#include "isa.h"

namespace {

struct Portable {
    static constexpr bool FUSED = false, NARROWS = false;
    static constexpr int LANES = 4, GROUP = 2, TILE = 2, VECTORS = 2, OFFSET = 0;
    typedef int32_t Ints __attribute__((vector_size(16)));
    typedef float Floats __attribute__((vector_size(16)));
    using Act = int16_t;
    using Acts = const int16_t*;
    using Weights = const int8_t*;

    static Weights weights(const int8_t* p) { return p; }
    static Acts acts(const int16_t* p) { return p; }
    static void dot(Ints& sum, Acts a, Weights w) {
        for (int l = 0; l < LANES; l++) sum[l] += a[0] * w[2 * l] + a[1] * w[2 * l + 1];
    }
    static constexpr bool SCALES = false, HALVES = false, INTEGERS_PAY = true;
    using Half = Ints;
    using HalfFloats = Floats;
    static void dot_pairs(Ints& sum, Ints a, Ints b) {
        for (int l = 0; l < LANES; l++)
            sum[l] += int32_t{static_cast<int16_t>(a[l])} * static_cast<int16_t>(b[l]) + (a[l] >> 16) * (b[l] >> 16);
    }
    static Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
};

}  // namespace

namespace clipq {
const Kernel kernel_portable = kernel_of<Portable>();
}  // namespace clipq
