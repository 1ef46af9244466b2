// AVX512-VNNI: 6 x 64 tile, 24 accumulators + 4 weights + 1 activation of 32 zmm registers.
#include <immintrin.h>

#include "vnni.h"

namespace {

struct Avx512Vnni : Vnni<16, 4> {
    static constexpr bool FUSED = true;
    // An asm statement because GCC spills the accumulators when given intrinsics, at half the speed.
    // AT&T order: signed, unsigned, sum.
    static void dot(Ints& sum, Acts a, Weights w) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx512_vnni = kernel_of<Avx512Vnni>();
}  // namespace clipq
