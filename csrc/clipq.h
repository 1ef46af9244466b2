// The C ABI of clipq's native CPU kernels: plain C types only, so that one binary serves every Python and torch.
// Every function is re-entrant: nothing outlasts a call but what was found out about the process (its processor, its
// OpenMP runtime) and, without OpenMP, the calling thread's own crew of sleeping threads.
#ifndef CLIPQ_H
#define CLIPQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLIPQ_ABI_VERSION 5
#ifdef _WIN32
#define CLIPQ_API __declspec(dllexport)
#else
#define CLIPQ_API __attribute__((visibility("default")))
#endif

enum clipq_path {
    CLIPQ_PORTABLE = 0,
    CLIPQ_AVX2 = 1,
    CLIPQ_AVX_VNNI = 2,
    CLIPQ_AVX512_VNNI = 3,
    CLIPQ_NEON_DOTPROD = 4,
    CLIPQ_PATHS = 5
};

enum clipq_status {
    CLIPQ_OK = 0,
    CLIPQ_UNSUPPORTED_PATH = 1,  // not built in, or the processor or its operating system lacks it
    CLIPQ_BAD_SIZE = 2,          // m < 0, n or k < 1, a stride smaller than its row, k > CLIPQ_MAX_K, n > CLIPQ_MAX_N, or as said below
    CLIPQ_OUT_OF_MEMORY = 3,
    CLIPQ_BAD_BLOCK = 4  // not what clipq_pack_block of this library wrote for this path
};

enum clipq_activation {
    CLIPQ_NO_ACTIVATION = 0,
    CLIPQ_GELU = 1,        // x * Phi(x), the erf form
    CLIPQ_GELU_TANH = 2,   // its tanh approximation
    CLIPQ_QUICK_GELU = 3,  // x * sigmoid(1.702 x)
    CLIPQ_SILU = 4,        // x * sigmoid(x)
    CLIPQ_ACTIVATIONS = 5
};

enum clipq_norm_kind {
    CLIPQ_LAYER_NORM = 0,  // (x - mean) / sqrt(variance + eps) * weight + bias
    CLIPQ_RMS_NORM = 1,    // x / sqrt(mean of x^2 + eps) * weight + bias
    CLIPQ_NORMS = 2
};

// Which two numbers of a head of queries or keys are turned together (Su et al., arXiv:2104.09864).
enum clipq_rotation {
    CLIPQ_NO_ROTATION = 0,
    CLIPQ_ROTATE_PAIRS = 1,   // neighbours: 0 and 1, 2 and 3, ...
    CLIPQ_ROTATE_HALVES = 2,  // i and i + dim / 2
    CLIPQ_ROTATIONS = 3
};

enum clipq_attention {
    CLIPQ_FLOAT_ATTENTION = 0,
    CLIPQ_INT8_ATTENTION = 1,  // queries and keys int8, each row with its own scale; shares and values in 16 bits
    CLIPQ_ATTENTIONS = 2
};

// Which rows of its sequence a row attends to.
enum clipq_mask {
    CLIPQ_SEE_ALL = 0,
    CLIPQ_SEE_BEFORE = 1,       // those up to itself
    CLIPQ_SEE_BUT_LAST = 2,     // those up to itself, but nobody (not even itself) the last row of a longer sequence
    CLIPQ_MASKS = 3
};

// 255 * 128 * k, the largest |sum of (q - zero_point) * w|, stays below 2^31 up to here.
#define CLIPQ_MAX_K 65793
// Far beyond any memory, and no product of it with a row's bytes leaves int64.
#define CLIPQ_MAX_N (INT64_C(1) << 40)

CLIPQ_API int clipq_abi_version(void);

// The fastest path of this build that the processor and the operating system support.
CLIPQ_API int clipq_path(void);
CLIPQ_API int clipq_supports(int path);

// Bytes that clipq_pack writes for a weight [n, k]; 0 for a bad path or size. The layout is the path's own.
CLIPQ_API size_t clipq_packed_size(int path, int64_t n, int64_t k);

// Packs the row-major int8 weight [n, k] (any value, -128 too) and the sum of each row. `out` is best 64-byte aligned.
CLIPQ_API int clipq_pack(int path, const int8_t* weight, int64_t n, int64_t k, uint8_t* out);

// How rows are quantized, in every call below: with `input_scale` 0 each by its own range; else all with this scale
// (positive, finite) and `input_zero_point` (of an int8, 0 if symmetric), so that what lies outside saturates.

// Quantization of rows as clipq/arithmetic/functional.py defines it. x: [m, k], rows ldx apart; q: [m, k] contiguous;
// scale, zero_point: [m]. A row with a NaN or an infinity gets scale NaN, zero point 0 and q 0.
CLIPQ_API int clipq_quantize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k,
                                  int symmetric, float input_scale, int32_t input_zero_point, int8_t* q, float* scale,
                                  int32_t* zero_point);

// y = dequantized(quantized(x) @ weight.T) + bias: [m, n], rows ldy apart; only those m x n floats are written.
// Accumulated exactly in int32; then ((acc * weight_scale) * x_scale) + bias, each step rounded to fp32 (no fused
// multiply-add), so that every path gives the same bits. `bias` may be NULL. A row with a NaN or infinity gives NaNs.
CLIPQ_API int clipq_linear(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                           const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n, int64_t k,
                           int symmetric, float input_scale, int32_t input_zero_point);

// The steps of a transformer block, one by one. All floats are float32; rows are contiguous unless a stride says else.

// clipq_quantize_rows of the LayerNorm of each row: (x - mean) / sqrt(variance + eps) * weight + bias.
CLIPQ_API int clipq_normalize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k,
                                   const float* weight, const float* bias, float eps, int symmetric, float input_scale,
                                   int32_t input_zero_point, int8_t* q, float* scale, int32_t* zero_point);

// clipq_linear, then `activation`; or, with `residual` and no activation, y += layer_scale * linear (NULL: 1).
CLIPQ_API int clipq_linear_step(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                                const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n,
                                int64_t k, int symmetric, float input_scale, int32_t input_zero_point, int activation,
                                int residual, const float* layer_scale);

// Of so many rows are the sequences whose attention is faster in integers (not on Arm); others take floats in blocks.
#define CLIPQ_INT8_KEYS 128

// softmax(q k^T / sqrt(dim)) v for `batch` sequences of rows offsets[i] to offsets[i + 1] (offsets[0] is 0, no sequence
// is empty). qkv: [rows, 3 * heads * dim], query, key and value of all heads side by side; y: [rows, heads * dim].
// kind: enum clipq_attention, here for sequences of any length.
CLIPQ_API int clipq_attention(int path, int threads, int kind, const float* qkv, const int64_t* offsets, int64_t batch,
                              int64_t heads, int64_t dim, int causal, float* y);

// Rows ids[i] of an int8 table [rows, k] with one scale a row, dequantized: y [count, k]. Ids must be in range.
CLIPQ_API int clipq_gather_rows(int path, int threads, const int8_t* table, const float* scale, int64_t rows,
                                int64_t k, const int64_t* ids, int64_t count, float* y);

// Stacks of pre-norm transformer blocks: x += ls_1 * out_proj(attn_norm(attention(qkv(ln_1(x)))));
// x += ls_2 * fc2(mlp_norm(act(fc1(ln_2(x))))). Each head of queries and of keys goes through its norm, and is then
// turned by its place. Gated, fc1 gives two halves, and act(first) * second is what act(...) above is.

typedef struct clipq_matrix {
    const int8_t* weight;  // [n, k]
    const float* scale;    // [n]
    const float* bias;     // [n] or NULL
    float input_scale;     // as said above, for the rows that it multiplies
    int32_t input_zero_point;
} clipq_matrix;

typedef struct clipq_norm {
    const float *weight, *bias;  // without a weight there is no norm; a bias may be NULL
    float eps;
    int32_t kind;  // enum clipq_norm_kind
} clipq_norm;

typedef struct clipq_block {
    int64_t width, hidden, heads;
    int32_t activation, symmetric, gated, rotation;  // rotation: enum clipq_rotation
    int32_t attention;  // enum clipq_attention, for CLIPQ_INT8_KEYS rows or more, where that is faster; else floats
    clipq_norm ln_1, ln_2;          // [width]
    clipq_norm q_norm, k_norm;      // [width / heads], or none
    clipq_norm attn_norm, mlp_norm; // [width] and [hidden], or none
    clipq_matrix qkv, out_proj;     // [3 width, width], [width, width]
    clipq_matrix fc1, fc2;          // [hidden, width] or gated [2 hidden, width], [width, hidden]
    const float *ls_1, *ls_2;       // [width] or NULL
} clipq_block;

// By what queries and keys are turned: row `place` of a sequence by row place - prefix of the tables, x * cos + turned * sin,
// where the two that are turned together are (-second, first). The first `prefix` rows of a sequence stay.
typedef struct clipq_rotary {
    const float *cos, *sin;  // [tokens, dim]
    int64_t tokens, dim;     // dim: width / heads
    int64_t prefix;
} clipq_rotary;

// Bytes that clipq_pack_block writes: all that the block needs, with its weights packed for `path`. 0 if it cannot be.
CLIPQ_API size_t clipq_block_size(int path, const clipq_block* block);
CLIPQ_API int clipq_pack_block(int path, const clipq_block* block, uint8_t* out);

// The width of a packed block, or 0 if the `size` bytes at `packed` are none of this library's for this processor.
CLIPQ_API int64_t clipq_block_width(const uint8_t* packed, size_t size);

// `count` packed blocks, one after the other, over x [rows, width], whose rows offsets[i] to offsets[i + 1] are
// sequence i of `batch` (offsets[0] is 0, no sequence is empty). y: [rows, width]; x is not changed. With `keep`,
// ascending row numbers, only those rows of the last block's result are computed: y is [kept, width]. NULL keeps all.
// mask: enum clipq_mask. rotary: for blocks that turn their queries and keys, with a row for every place; NULL: none does.
CLIPQ_API int clipq_run_blocks(int threads, const uint8_t* const* blocks, int64_t count, const float* x,
                               const int64_t* offsets, int64_t batch, int mask, const int64_t* keep, int64_t kept,
                               const clipq_rotary* rotary, float* y);

// What stands before and after the blocks of a tower.

// Cuts pictures [batch, channels, height, width] into rows [batch * (height / down) * (width / across),
// channels * down * across], as a convolution of that kernel and stride reads them. What is left over is not read.
CLIPQ_API int clipq_cut_patches(int threads, const float* pixels, int64_t batch, int64_t channels, int64_t height,
                                int64_t width, int64_t down, int64_t across, float* rows);

// Rows [batch, prefix + patches, width]: the rows `prefix` [prefix, width] and then those of a picture, to which
// `positions` [patches, width] (or NULL) are added. With `eps` not negative, the LayerNorm of each
// (in float64, rounded once).
CLIPQ_API int clipq_join_tokens(int threads, const float* patch_rows, int64_t batch, int64_t patches,
                                int64_t width, const float* prefix, int64_t prefixes, const float* positions,
                                const float* weight, const float* bias, float eps, float* rows);

// The LayerNorm of rows [m, k], rows ldx apart, in float64 and rounded once: y [m, k].
CLIPQ_API int clipq_layer_norm(int threads, const float* x, int64_t ldx, int64_t m, int64_t k,
                               const float* weight, const float* bias, float eps, float* y);

// y = x @ weight + bias in floats. x: [m, k]; weight: [k, n] with n a multiple of 16 (zeros may fill it up); bias: [n]
// or NULL; y: [m, n].
CLIPQ_API int clipq_float_linear(int path, int threads, const float* x, int64_t m, int64_t k, const float* weight,
                                 const float* bias, int64_t n, float* y);

// softmax(q k^T / sqrt(dim)) v of one query `q` [heads * dim] over each of `batch` sequences of rows offsets[i] to
// offsets[i + 1]. kv: [rows, 2 * heads * dim], keys and values of all heads side by side; y: [batch, heads * dim].
CLIPQ_API int clipq_pool_attention(int path, int threads, const float* q, const float* kv, const int64_t* offsets,
                                   int64_t batch, int64_t heads, int64_t dim, float* y);

// What each of `count` outputs of a pass of resizing is made of: `number[i]` neighbours from `first[i]` on, at most
// `most`, with the weights weight[i * most ...], of 22 fractional bits, whose sizes add up to less than 2.
struct clipq_taps {
    int64_t count, most;
    const int32_t *first, *number, *weight;
};

// Beyond any picture, and no product of two of it with a pixel's bytes leaves int64.
#define CLIPQ_MAX_SIDE (INT64_C(1) << 24)

// out[c][y][x] = table[c][p[y][x][c]], p being the 8-bit RGB picture [height, width, 3] resized with these taps as Pillow
// does it: first across, rounded to 8 bits, then down. table: [3, 256]; out: [3, down->count, across->count].
CLIPQ_API int clipq_preprocess(int path, const uint8_t* pixels, int64_t height, int64_t width,
                               const struct clipq_taps* across, const struct clipq_taps* down, const float* table,
                               float* out);

#ifdef __cplusplus
}
#endif
#endif
