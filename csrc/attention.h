// Softmax attention of one head in float32, for the short sequences of CLIP's towers: keys are transposed into scratch
// memory once, then a few queries at a time go through two small products with the softmax between.
#pragma once

#include "vectors.h"

namespace {

template <class Isa>
struct Attend {
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES, TILE = Isa::TILE, VECTORS = Isa::VECTORS;
    static constexpr int64_t BLOCK = 4 * TILE;  // queries between whose two products the scores stay in the cache

    static int64_t scratch(int64_t keys, int64_t dim) {
        const int64_t across = round_up(keys, LANES), along = round_up(dim, LANES);
        return dim * across + keys * along + BLOCK * (across + along);
    }

    // c[ROWS, COLS vectors] = a[ROWS, k] @ b[k, COLS vectors]
    template <int ROWS, int COLS>
    static __attribute__((noinline)) void tile(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k,
                                               float* c, int64_t ldc) {
        Floats sum[ROWS][COLS] = {};
#pragma GCC unroll 1
        for (int64_t i = 0; i < k; i++) {
            Floats columns[COLS];
#pragma GCC unroll 8
            for (int j = 0; j < COLS; j++) columns[j] = load<Floats>(b + i * ldb + j * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const Floats row = splat<Isa>(a[r * lda + i]);
#pragma GCC unroll 8
                for (int j = 0; j < COLS; j++) sum[r][j] = Isa::fma(row, columns[j], sum[r][j]);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
            for (int j = 0; j < COLS; j++) memcpy(c + r * ldc + j * LANES, &sum[r][j], sizeof(Floats));
    }

    using Tile = void (*)(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t);

    template <int ROWS, int COLS>
    static Tile tile_of(int64_t rows, int64_t columns) {
        if constexpr (ROWS > 1)
            if (rows < ROWS) return tile_of<ROWS - 1, COLS>(rows, columns);
        if constexpr (COLS > 1)
            if (columns < COLS) return tile_of<ROWS, COLS - 1>(rows, columns);
        return tile<ROWS, COLS>;
    }

    // c[rows, columns] = a[rows, k] @ b[k, columns]; b and c are readable and writable to whole vectors.
    static void product(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                        int64_t rows, int64_t columns) {
        const int64_t vectors = (columns - 1) / LANES + 1;
        for (int64_t v = 0; v < vectors; v += VECTORS)
            for (int64_t r = 0; r < rows; r += TILE)
                tile_of<TILE, VECTORS>(rows - r, vectors - v)(a + r * lda, lda, b + v * LANES, ldb, k,
                                                              c + r * ldc + v * LANES, ldc);
    }

    // softmax(scale * row[0 .. seen)), zeros up to `width`.
    static void softmax(float* row, int64_t seen, int64_t width, float scale) {
        Floats most = splat<Isa>(-__builtin_inff()), sum = {};
        int64_t i = 0;
        for (; i + LANES <= seen; i += LANES) {
            const Floats v = load<Floats>(row + i);
            most = v > most ? v : most;
        }
        float top = -__builtin_inff();
        for (int l = 0; l < LANES; l++) top = most[l] > top ? most[l] : top;
        for (; i < seen; i++) top = row[i] > top ? row[i] : top;
        for (i = 0; i < seen; i += LANES) {
            Floats e = exponential<Isa>((load<Floats>(row + i) - top) * scale);
            if (seen - i < LANES) {
                const Floats whole = e;
                e = Floats{};
                memcpy(&e, &whole, sizeof(float) * static_cast<size_t>(seen - i));
            }
            memcpy(row + i, &e, sizeof e);
            sum += e;
        }
        for (; i < width; i += LANES) memset(row + i, 0, sizeof(Floats));
        const float all = 1.0f / sum_of<Isa>(sum);
        for (i = 0; i < seen; i += LANES) {
            const Floats share = load<Floats>(row + i) * all;
            memcpy(row + i, &share, sizeof share);
        }
    }

    // Keys as [dim, across], zeros beyond the last one.
    static void transpose(const Attention& job, float* keys, int64_t across) {
        for (int64_t j = 0; j < job.keys; j++)
            for (int64_t d = 0; d < job.dim; d++) keys[d * across + j] = job.k[j * job.ldkv + d];
        for (int64_t d = 0; d < job.dim; d++)
            memset(keys + d * across + job.keys, 0, sizeof(float) * static_cast<size_t>(across - job.keys));
    }

    // Values as [keys, along], zeros beyond each row.
    static void pad(const Attention& job, float* values, int64_t along) {
        for (int64_t j = 0; j < job.keys; j++) {
            memset(values + (j + 1) * along - LANES, 0, sizeof(Floats));
            memcpy(values + j * along, job.v + j * job.ldkv, sizeof(float) * static_cast<size_t>(job.dim));
        }
    }

    static void attend(const Attention& job, float* memory) {
        const int64_t across = round_up(job.keys, LANES), along = round_up(job.dim, LANES);
        float *keys = memory, *copies = keys + job.dim * across, *scores = copies + job.keys * along;
        float* mixed = scores + BLOCK * across;
        transpose(job, keys, across);
        const bool whole = along == job.dim;  // values can be read where they are
        if (!whole) pad(job, copies, along);
        const float* values = whole ? job.v : copies;
        const int64_t ldv = whole ? job.ldkv : along;
        const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(job.dim));
        for (int64_t q = 0; q < job.queries; q += BLOCK) {
            const int64_t rows = at_most(job.queries - q, BLOCK), seen = at_most(job.visible + q + rows - 1, job.keys);
            const int64_t width = round_up(seen, LANES);
            product(job.q + q * job.ldq, job.ldq, keys, across, job.dim, scores, across, rows, seen);
            for (int64_t r = 0; r < rows; r++)
                softmax(scores + r * across, at_most(job.visible + q + r, job.keys), width, scale);
            product(scores, across, values, ldv, seen, mixed, along, rows, job.dim);
            for (int64_t r = 0; r < rows; r++)
                memcpy(job.out + (q + r) * job.ldo, mixed + r * along, sizeof(float) * static_cast<size_t>(job.dim));
        }
    }
};

}  // namespace
