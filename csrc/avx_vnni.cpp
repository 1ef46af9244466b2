// AVX-VNNI: 6 x 16 tile in the 16 ymm registers (12 accumulators, 2 weights, 1 activation).
#include <immintrin.h>

#include "vnni.h"

namespace {

struct AvxVnni : Vnni<8, 2> {
    static constexpr bool FUSED = true, NARROWS = true;
    // An asm statement because GCC spills the accumulators when given intrinsics. AT&T order: signed, unsigned, sum.
    // {vex} (its braces escaped) picks the encoding that processors without AVX-512 have.
    static void dot(Ints& sum, Acts a, Weights w) { asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w)); }
    static constexpr bool SCALES = false, HALVES = false, INTEGERS_PAY = true;
    using Half = Ints;
    using HalfFloats = Floats;
    static void dot_pairs(Ints& sum, Ints a, Ints b) {
        asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    }
    typedef Act Narrow __attribute__((vector_size(8)));
    static Narrow narrowed(Ints q) {
        const __m256i wide = reinterpret_cast<__m256i>(q);
        const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
        const __m128i bytes = _mm_packus_epi16(half, half);
        Narrow low;
        memcpy(&low, &bytes, sizeof low);
        return low;
    }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx_vnni = kernel_of<AvxVnni>();
}  // namespace clipq
