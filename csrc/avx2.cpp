// AVX2: 6 x 16 tile. There is no exact int8 product before VNNI (vpmaddubsw saturates at int16), so weights are widened
// to int16 in registers and vpmaddwd adds pairs exactly into int32: 12 accumulators, 2 weights, 1 activation and
// 1 product fill the 16 registers. Packing the weights as int16 was 2 % faster and twice as large.
#include <immintrin.h>

#include "isa.h"

namespace {

struct Avx2 {
    static constexpr bool FUSED = true, NARROWS = true;
    static constexpr int LANES = 8, GROUP = 2, TILE = 6, VECTORS = 2, OFFSET = 0;
    typedef int32_t Ints __attribute__((vector_size(32)));
    typedef float Floats __attribute__((vector_size(32)));
    using Act = int16_t;
    using Acts = __m256i;
    using Weights = __m256i;

    static Weights weights(const int8_t* p) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static Acts acts(const int16_t* p) {
        int32_t pair;
        memcpy(&pair, p, sizeof pair);
        return _mm256_set1_epi32(pair);
    }
    static void dot(Ints& sum, Acts a, Weights w) { sum += reinterpret_cast<Ints>(_mm256_madd_epi16(a, w)); }
    static constexpr bool SCALES = false, HALVES = false, INTEGERS_PAY = true;
    using Half = Ints;
    using HalfFloats = Floats;
    static void dot_pairs(Ints& sum, Ints a, Ints b) {
        sum += reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
    }
    typedef Act Narrow __attribute__((vector_size(16)));
    static Narrow narrowed(Ints q) {
        const __m256i wide = reinterpret_cast<__m256i>(q);
        return reinterpret_cast<Narrow>(
            _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
    }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx2 = kernel_of<Avx2>();
}  // namespace clipq
