// NEON with dot products (Armv8.2 and later): 6 x 16 tile. 24 accumulators and 4 weights leave 4 of the 32 registers
// for activations on their way. 8 x 12 would fill as many, but the widths of ViTs are multiples of 16, not of 12.
// Not timed on real hardware yet: the results are tested under an emulator, which says nothing of speed.
#include <arm_neon.h>

#ifndef __clang__
#pragma GCC optimize("no-schedule-insns")  // else GCC loads activations so early that accumulators are spilled
#endif

#include "isa.h"

namespace {

struct NeonDotprod {
    static constexpr bool FUSED = true, NARROWS = true;
    static constexpr int LANES = 4, GROUP = 4, TILE = 6, VECTORS = 4, OFFSET = 0;
    typedef int32_t Ints __attribute__((vector_size(16)));
    typedef float Floats __attribute__((vector_size(16)));
    using Act = int8_t;
    using Acts = int8x8_t;
    using Weights = int8x16_t;

    static Weights weights(const int8_t* p) { return vld1q_s8(p); }

    // The four activations in lane 0 only: sdot by element spreads them itself, and a plain load of 4 bytes leaves the
    // vector units free, where one to all lanes (ld1r) takes a slot of theirs on many cores. Clang makes ld1r of it all
    // the same; given asm statements instead, it shuffles the accumulators between registers.
    static Acts acts(const int8_t* p) {
        int32_t four;
        memcpy(&four, p, sizeof four);
        return vreinterpret_s8_s32(int32x2_t{four, 0});
    }
    static void dot(Ints& sum, Acts a, Weights w) {
        sum = reinterpret_cast<Ints>(vdotq_lane_s32(reinterpret_cast<int32x4_t>(sum), w, a, 0));
    }

    static constexpr bool SCALES = false, HALVES = false, INTEGERS_PAY = false;
    using Half = Ints;
    using HalfFloats = Floats;
    // Four instructions for what two of floats do: pairs of int16 have no product of their own here.
    static void dot_pairs(Ints& sum, Ints a, Ints b) {
        const int16x8_t x = reinterpret_cast<int16x8_t>(a), y = reinterpret_cast<int16x8_t>(b);
        sum += reinterpret_cast<Ints>(vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
    }
    typedef Act Narrow __attribute__((vector_size(4)));
    static Narrow narrowed(Ints q) {
        const int16x4_t half = vmovn_s32(reinterpret_cast<int32x4_t>(q));
        const int8x8_t bytes = vmovn_s16(vcombine_s16(half, half));
        Narrow low;
        memcpy(&low, &bytes, sizeof low);
        return low;
    }
    static Floats fma(Floats a, Floats b, Floats c) {
        return reinterpret_cast<Floats>(vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a),
                                                  reinterpret_cast<float32x4_t>(b)));
    }
};

}  // namespace

namespace clipq {
const Kernel kernel_neon_dotprod = kernel_of<NeonDotprod>();
}  // namespace clipq
