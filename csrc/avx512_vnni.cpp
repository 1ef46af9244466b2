// AVX512-VNNI: 6 x 64 tile, 24 accumulators + 4 weights + 1 activation of 32 zmm registers.
#include <immintrin.h>

#include "vnni.h"

namespace {

struct Avx512Vnni : Vnni<16, 4> {
    static constexpr bool FUSED = true;
    // An asm statement because GCC spills the accumulators when given intrinsics, at half the speed.
    // AT&T order: signed, unsigned, sum.
    static void dot(Ints& sum, Acts a, Weights w) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
    static constexpr bool SCALES = true, INTEGERS_PAY = true;
    // Asm statements because GCC 12 warns of its own intrinsics.
    static Floats above_floor(Floats x) {
        asm("vreduceps $1, %0, %0" : "+v"(x));
        return x;
    }
    static Floats scaled(Floats p, Floats x) {
        asm("vscalefps %1, %0, %0" : "+v"(p) : "v"(x));
        return p;
    }
    static void dot_pairs(Ints& sum, Ints a, Ints b) { asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
    // At half the cost of a whole vector where 512 bits are two halves (Zen 4).
    static constexpr bool HALVES = true;
    typedef int32_t Half __attribute__((vector_size(32)));
    typedef float HalfFloats __attribute__((vector_size(32)));
    static void dot_pairs(Half& sum, Ints a, Half b) {
        Half low;
        memcpy(&low, &a, sizeof low);  // the same register
        asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(low), "v"(b));
    }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx512_vnni = kernel_of<Avx512Vnni>();
}  // namespace clipq
