// The C ABI of clipq's native CPU kernels: plain C types only, so that one binary serves every Python and torch.
// Every function is re-entrant: no state changes outside the arguments, once the processor has been probed.
#ifndef CLIPQ_H
#define CLIPQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLIPQ_ABI_VERSION 1
#define CLIPQ_API __attribute__((visibility("default")))

enum clipq_path {
    CLIPQ_PORTABLE = 0,
    CLIPQ_AVX2 = 1,
    CLIPQ_AVX_VNNI = 2,
    CLIPQ_AVX512_VNNI = 3,
    CLIPQ_NEON_DOTPROD = 4,  // reserved
    CLIPQ_PATHS = 5
};

enum clipq_status {
    CLIPQ_OK = 0,
    CLIPQ_UNSUPPORTED_PATH = 1,  // not built in, or the processor or its operating system lacks it
    CLIPQ_BAD_SIZE = 2,          // m < 0, n or k < 1, a stride smaller than its row, or k > CLIPQ_MAX_K
    CLIPQ_OUT_OF_MEMORY = 3
};

// 255 * 128 * k, the largest |sum of (q - zero_point) * w|, stays below 2^31 up to here.
#define CLIPQ_MAX_K 65793

CLIPQ_API int clipq_abi_version(void);

// The fastest path of this build that the processor and the operating system support.
CLIPQ_API int clipq_path(void);
CLIPQ_API int clipq_supports(int path);

// Bytes that clipq_pack writes for a weight [n, k]; 0 for a bad path or size. The layout is the path's own.
CLIPQ_API size_t clipq_packed_size(int path, int64_t n, int64_t k);

// Packs the row-major int8 weight [n, k] (any value, -128 too) and the sum of each row. `out` is best 64-byte aligned.
CLIPQ_API int clipq_pack(int path, const int8_t* weight, int64_t n, int64_t k, uint8_t* out);

// Per-row dynamic quantization as clipq/functional.py defines it. x: [m, k], rows ldx apart; q: [m, k] contiguous;
// scale, zero_point: [m]. A row with a NaN or an infinity gets scale NaN, zero point 0 and q 0.
CLIPQ_API int clipq_quantize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k,
                                  int symmetric, int8_t* q, float* scale, int32_t* zero_point);

// y = dequantized(quantized(x) @ weight.T) + bias: [m, n], rows ldy apart; only those m x n floats are written.
// Accumulated exactly in int32; then ((acc * x_scale) * weight_scale) + bias, each step rounded to fp32 (no fused
// multiply-add), so that every path gives the same bits. `bias` may be NULL. A row with a NaN or infinity gives NaNs.
CLIPQ_API int clipq_linear(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                           const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n, int64_t k,
                           int symmetric);

#ifdef __cplusplus
}
#endif
#endif
