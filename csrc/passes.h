// The two passes of resizing 8-bit pictures, on vectors as wide as the instruction set has (see resize.cpp).
#pragma once

#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernel.h"

namespace {

using namespace clipq;

#define CLIPQ_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)

struct Sums {
    __m512i lanes;

    Sums() : lanes(_mm512_setzero_si512()) {}
    static __m512i widened(const uint8_t* p) {
        return _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    void add(const uint8_t* p, const int32_t* weights) {
        const __m512i k = _mm512_loadu_si512(weights);
        lanes = _mm512_add_epi32(lanes, _mm512_mullo_epi32(widened(p), k));
    }
    void add(const uint8_t* p, int32_t weight) {
        lanes = _mm512_add_epi32(lanes, _mm512_mullo_epi32(widened(p), _mm512_set1_epi32(weight)));
    }
    void round_to(uint8_t* out) const {
        const __m512i half = _mm512_set1_epi32(1 << (TAP_BITS - 1)), most = _mm512_set1_epi32(255);
        const __m512i values = _mm512_maskz_srai_epi32(0xffff, _mm512_add_epi32(lanes, half), TAP_BITS);
        const __m512i low = _mm512_maskz_max_epi32(0xffff, values, _mm512_setzero_si512());
        const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_maskz_min_epi32(0xffff, low, most));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    }
    // Lanes 0 to 2: the sums over the taps of each channel.
    __m512i channels() const {
        const __m512i up6 = _mm512_maskz_alignr_epi32(0x3f, lanes, lanes, 6);  // lanes 6 to 11 on 0 to 5
        const __m512i six = _mm512_add_epi32(lanes, up6);
        const __m512i up3 = _mm512_maskz_alignr_epi32(0x7, six, six, 3);
        const __m512i last = _mm512_maskz_alignr_epi32(0x7, lanes, lanes, 12);
        return _mm512_add_epi32(_mm512_add_epi32(six, up3), last);
    }
    // PIXEL bytes of each of TAP_ROWS rows.
    static void pixels(const Sums* rows, uint8_t* out) {
        Sums four;
        const __m512i a = rows[0].channels(), b = rows[1].channels(), c = rows[2].channels(), d = rows[3].channels();
        four.lanes = _mm512_mask_alignr_epi32(a, 0x00f0, b, b, 12);  // lanes 0 to 3 on 4 to 7, and so on
        four.lanes = _mm512_mask_alignr_epi32(four.lanes, 0x0f00, c, c, 8);
        four.lanes = _mm512_mask_alignr_epi32(four.lanes, 0xf000, d, d, 4);
        four.round_to(out);
    }
};

#else  // plain loops, which compilers make vectors of

CLIPQ_INLINE uint8_t rounded(int32_t sum) {
    const int32_t value = (sum + (1 << (TAP_BITS - 1))) >> TAP_BITS;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

struct Sums {
    int32_t lanes[TAP_LANES] = {};

    void add(const uint8_t* p, const int32_t* weights) {
        for (int l = 0; l < TAP_LANES; l++) lanes[l] += p[l] * weights[l];
    }
    void add(const uint8_t* p, int32_t weight) {
        for (int l = 0; l < TAP_LANES; l++) lanes[l] += p[l] * weight;
    }
    void round_to(uint8_t* out) const {
        for (int l = 0; l < TAP_LANES; l++) out[l] = rounded(lanes[l]);
    }
    static void pixels(const Sums* rows, uint8_t* out) {
        for (int r = 0; r < TAP_ROWS; r++)
            for (int c = 0; c < 3; c++) {
                int32_t sum = 0;
                for (int t = 0; t < TAPS; t++) sum += rows[r].lanes[3 * t + c];
                out[PIXEL * r + c] = rounded(sum);
            }
    }
};

#endif

// TAP_ROWS rows, `stride` bytes apart, to rows of PIXEL bytes a pixel, `out_stride` apart.
void across_rows(const uint8_t* rows, int64_t stride, const clipq::Taps& taps, const int32_t* weights, uint8_t* out,
                 int64_t out_stride) {
    for (int64_t x = 0; x < taps.count; x++) {
        const uint8_t* from = rows + 3 * taps.first[x];
        Sums sums[TAP_ROWS];
        for (int64_t g = 0; g < taps.groups; g++, from += 3 * TAPS, weights += TAP_LANES) {
            if (g * TAPS >= taps.number[x]) continue;  // its weights are 0, and its bytes may lie outside
            for (int r = 0; r < TAP_ROWS; r++) sums[r].add(from + r * stride, weights);
        }
        uint8_t bytes[TAP_ROWS * PIXEL] = {};
        Sums::pixels(sums, bytes);
        for (int r = 0; r < TAP_ROWS; r++) std::memcpy(out + r * out_stride + PIXEL * x, bytes + PIXEL * r, PIXEL);
    }
}

// One row of `bytes` bytes, a multiple of TAP_LANES, as the weighted sum of `number` rows.
void down_row(const uint8_t* rows, int64_t stride, int64_t bytes, const int32_t* weights, int64_t number,
              uint8_t* out) {
    for (int64_t i = 0; i < bytes; i += TAP_LANES) {
        Sums sums;
        for (int64_t t = 0; t < number; t++) sums.add(rows + t * stride + i, weights[t]);
        sums.round_to(out + i);
    }
}

}  // namespace
