// What one instruction set offers: a table of functions, filled by isa.h compiled with that instruction set's flags.
#pragma once

#include <cstddef>
#include <cstdint>

namespace clipq {

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
constexpr int64_t at_least(int64_t value, int64_t least) { return value < least ? least : value; }
constexpr int64_t at_most(int64_t value, int64_t most) { return value > most ? most : value; }

// Quantized rows of x as the kernel wants to read them, in scratch memory of one call.
struct Rows {
    void* acts;           // kernel's own element type, row_stride bytes a row
    float* scale;         // [m]; NaN marks a row with a non-finite value
    int32_t* zero_point;  // [m]
};

// How rows become int8: each by its own range, or all by the `scale` and `zero_point` given.
struct Grid {
    bool symmetric;
    float scale;  // 0: each by its own
    int32_t zero_point;

    Grid(bool symmetric_, float scale_ = 0.0f, int32_t zero_point_ = 0)
        : symmetric(symmetric_), scale(scale_), zero_point(zero_point_) {}

    bool valid() const {
        if (scale == 0.0f) return true;
        const bool fits = symmetric ? zero_point == 0 : zero_point >= -128 && zero_point <= 127;
        return scale > 0.0f && scale <= 3.402823466e38f && fits;
    }
};

// Rows of floats to quantize: x itself, or its norm where `eps` is not negative.
struct Source {
    const float* x;
    int64_t ldx, k;
    float eps;
    const float *weight, *bias;  // [k] of the norm
    bool centered = true;        // LayerNorm; else RMSNorm
};

// y = act(dequantized(rows @ weight.T) + bias), or without act y += layer_scale * that where it accumulates.
struct Linear {
    Rows rows;
    const uint8_t* packed;
    const float* weight_scale;  // [n]
    const float* bias;          // [n] or null
    float* y;
    int64_t ldy, n, k;
    int activation;            // enum clipq_activation
    bool accumulate;           // into y: the residual
    const float* layer_scale;  // [n] or null; only where it accumulates
    int64_t between = 0;       // panels between the end of a task and what its thread is likely to multiply next
};

// Attention of one head over one sequence. Query i sees the keys before min(keys, visible + i).
struct Attention {
    const float *q, *k, *v;
    int64_t ldq, ldkv;
    float* out;  // [queries, dim], rows ldo apart
    int64_t ldo, queries, keys, dim, visible;
};

// Heads of one row, side by side, that are normed (unless `weight` is null) and then turned (unless `cos` is), in place.
struct Heads {
    float* x;  // [heads * dim]
    int64_t heads, dim;
    const float *weight, *bias;  // [dim]
    float eps;
    bool centered;
    const float *cos, *sin;  // [dim]
    int rotation;            // enum clipq_rotation
};

constexpr int TAP_BITS = 22;   // of the fraction of a weight of resizing
constexpr int TAPS = 5;        // pixels of three bytes in a vector of TAP_LANES, whose last lane has weight 0
constexpr int TAP_LANES = 16;
constexpr int TAP_ROWS = 4;    // of a picture that share the loads of the weights
constexpr int PIXEL = 4;       // bytes of a pixel between the passes

// The pass across a picture: output x has number[x] taps from pixel first[x] on, in at most `groups` of TAPS.
struct Taps {
    int64_t count, groups;
    const int32_t *first, *number;
};

struct Kernel {
    int tile_rows;   // rows of x a register tile covers
    int panel_cols;  // output channels packed together
    size_t (*packed_size)(int64_t n, int64_t k);
    void (*pack)(const int8_t* weight, int64_t n, int64_t k, uint8_t* out);
    int64_t (*row_stride)(int64_t k);
    // Rows [begin, end) of the source.
    void (*quantize)(const Source& source, const Grid& grid, const Rows& out, int64_t begin, int64_t end);
    // The same, with acts an int8 [m, k].
    void (*quantize_int8)(const Source& source, const Grid& grid, const Rows& out, int64_t begin, int64_t end);
    // Rows [row, row_end) times panels [panel, panel_end).
    void (*multiply)(const Linear& job, int64_t row, int64_t row_end, int64_t panel, int64_t panel_end);
    // Floats of scratch memory that attend needs.
    int64_t (*attention_scratch)(int64_t keys, int64_t dim);
    void (*attend)(const Attention& job, float* scratch);
    // c[rows, columns] = a[rows, k] @ b[k, columns] in floats; rows of b and c are readable and writable to WIDEST.
    void (*product)(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                    int64_t rows, int64_t columns);
    // TAP_ROWS rows of RGB, `stride` bytes apart, to rows of PIXEL bytes a pixel, `out_stride` apart. weights:
    // [count, groups, TAP_LANES]. May read TAP_LANES bytes from the first byte of any group of taps.
    void (*across_rows)(const uint8_t* rows, int64_t stride, const Taps& taps, const int32_t* weights, uint8_t* out,
                        int64_t out_stride);
    // A row of `bytes` bytes, a multiple of TAP_LANES, as the weighted sum of `number` rows, `stride` bytes apart.
    void (*down_row)(const uint8_t* rows, int64_t stride, int64_t bytes, const int32_t* weights, int64_t number,
                     uint8_t* out);
    void (*turn)(const Heads& job);
    // row[0 .. k) = activation(row[0 .. k)) * row[k .. 2k)
    void (*gate)(float* row, int64_t k, int activation);
    // attend by integer products, and whether they are the faster ones.
    bool integers_pay;
    int64_t (*integer_attention_scratch)(int64_t keys, int64_t dim);
    void (*attend_integers)(const Attention& job, float* scratch);
};

constexpr int64_t WIDEST = 16;  // floats in the widest vector of any path

// One per instruction set; a set the compiler could not build is left out by the CLIPQ_HAVE_ macros (see api.cpp).
extern const Kernel kernel_portable, kernel_avx2, kernel_avx_vnni, kernel_avx512_vnni, kernel_neon_dotprod;

}  // namespace clipq
