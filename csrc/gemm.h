// The int8 linear of one instruction set: packing, register tiles and their epilogue, over a small `Isa` of traits:
//
//   LANES    int32 accumulators in a vector
//   GROUP    neighbours along k that one instruction multiplies and adds
//   TILE     rows of x in a register tile;  VECTORS  vectors of output channels in it (a panel is VECTORS * LANES wide)
//   Act      element of a quantized row, holding q + OFFSET (the zero point takes the offset back in the epilogue)
//   Ints, Floats           vectors of LANES int32 / float: the compilers' vector extensions, any width on any processor
//   Weights weights(p)     the LANES * GROUP int8 weights at p
//   Acts acts(p)           the GROUP activations at p, in every lane
//   dot(sum, acts, weights)  sum[lane] += acts . weights, exact in int32
//   Floats fma(a, b, c)      a * b + c, rounded once if FUSED
//   narrowed(ints)           LANES Act, of ints that fit; where it NARROWS better than the compiler
//
// Packed weight: int32 sum of each output channel (padded to whole panels), then the panels. A panel is
// [k / GROUP][VECTORS * LANES][GROUP] int8, zero beyond n and k. A whole tile is always computed; tails of n go through
// a buffer, tails of m have tiles of their own height. See quantize.h for why the namespace has no name.
#pragma once

#include "quantize.h"

namespace {

template <class Isa>
struct Gemm {
    using Act = typename Isa::Act;
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES, GROUP = Isa::GROUP, TILE = Isa::TILE, VECTORS = Isa::VECTORS;
    static constexpr int PANEL = VECTORS * LANES;

    static int64_t sums_size(int64_t n) { return round_up(round_up(n, PANEL) * 4, 64); }
    static int64_t panel_size(int64_t k) { return round_up(k, GROUP) * PANEL; }

    static size_t packed_size(int64_t n, int64_t k) {
        return static_cast<size_t>(sums_size(n) + round_up(n, PANEL) / PANEL * panel_size(k));
    }

    static void pack(const int8_t* weight, int64_t n, int64_t k, uint8_t* out) {
        memset(out, 0, packed_size(n, k));
        uint8_t* panels = out + sums_size(n);
        for (int64_t row = 0; row < n; row++) {
            const int8_t* w = weight + row * k;
            uint8_t* to = panels + row / PANEL * panel_size(k) + row % PANEL * GROUP;
            int32_t sum = 0;
            for (int64_t i = 0; i < k; i++) sum += w[i];
            int64_t i = 0;
            for (; i + GROUP <= k; i += GROUP, to += GROUP * PANEL) memcpy(to, w + i, GROUP);
            if (i < k) memcpy(to, w + i, static_cast<size_t>(k - i));
            memcpy(out + row * 4, &sum, sizeof sum);
        }
    }

    // Whole cache lines, but not a multiple of 2 KiB: rows of a tile would then compete for the same cache sets.
    static int64_t row_stride(int64_t k) {
        const int64_t bytes = round_up(round_up(k, GROUP) * static_cast<int64_t>(sizeof(Act)), 64);
        return bytes % 2048 == 0 ? bytes + 64 : bytes;
    }

    static void quantize(const Source& source, const Grid& grid, const Rows& out, int64_t begin, int64_t end) {
        const int64_t k = source.k;
        for (int64_t i = begin; i < end; i++)
            Quantizer<Isa, Act, Isa::OFFSET>::row(source, i, grid, row_of(out, k, i), round_up(k, GROUP),
                                                  out.scale + i, out.zero_point + i);
    }

    static void quantize_int8(const Source& source, const Grid& grid, const Rows& out, int64_t begin, int64_t end) {
        const int64_t k = source.k;
        for (int64_t i = begin; i < end; i++)
            Quantizer<Isa, int8_t, 0>::row(source, i, grid, static_cast<int8_t*>(out.acts) + i * k, k,
                                           out.scale + i, out.zero_point + i);
    }

    static Act* row_of(const Rows& rows, int64_t k, int64_t row) {
        return reinterpret_cast<Act*>(static_cast<char*>(rows.acts) + row * row_stride(k));
    }

    // What belongs to a panel's output channels, readable to its full width. With a layer scale, y is added to.
    struct Channels {
        const int32_t* sums;
        const float *scale, *bias, *layer_scale;
    };

    // Weights to fetch into the cache while a tile multiplies others: `step` bytes further with each group. A panel is
    // larger than the first-level cache and comes from memory, a tile after a tile of rows uses it: on Zen 4, with
    // weights that no cache holds, fetching the next one meanwhile gives a product of 50 rows 4 % more speed.
    struct Ahead {
        const uint8_t* from;
        int64_t step;
    };

    template <int ROWS>
    static __attribute__((noinline)) void tile(const Act* a, int64_t stride, const uint8_t* b, int64_t groups,
                                               const float* scale, const int32_t* zero_point, const Channels& channels,
                                               float* y, int64_t ldy, Ahead ahead) {
        Ints sum[ROWS][VECTORS] = {};
        const int8_t* w = reinterpret_cast<const int8_t*>(b);
#pragma GCC unroll 1
        for (int64_t g = 0; g < groups; g++, w += PANEL * GROUP, a += GROUP, ahead.from += ahead.step) {
            __builtin_prefetch(ahead.from);
            typename Isa::Weights weights[VECTORS];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) weights[v] = Isa::weights(w + v * LANES * GROUP);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const typename Isa::Acts acts = Isa::acts(a + r * stride);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) Isa::dot(sum[r][v], acts, weights[v]);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) {
                const Ints exact = sum[r][v] - (zero_point[r] + Isa::OFFSET) * load<Ints>(channels.sums + v * LANES);
                // The weights' scale first: with it a sum is of a weight's size, and large rows do not overflow before.
                const Floats value = __builtin_convertvector(exact, Floats) * load<Floats>(channels.scale + v * LANES);
                Floats result = value * scale[r] + load<Floats>(channels.bias + v * LANES);
                float* to = y + r * ldy + v * LANES;
                if (channels.layer_scale)
                    result = load<Floats>(to) + result * load<Floats>(channels.layer_scale + v * LANES);
                memcpy(to, &result, sizeof result);
            }
        }
    }

    using Tile = void (*)(const Act*, int64_t, const uint8_t*, int64_t, const float*, const int32_t*, const Channels&,
                          float*, int64_t, Ahead);

    template <int ROWS>
    static Tile tile_of(int64_t rows) {
        if constexpr (ROWS > 1)
            if (rows < ROWS) return tile_of<ROWS - 1>(rows);
        return tile<ROWS>;
    }

    static void multiply(const Linear& job, int64_t row, int64_t row_end, int64_t panel, int64_t panel_end) {
        for (; panel < panel_end; panel++) {
            const int64_t first = panel * PANEL, width = job.n - first < PANEL ? job.n - first : PANEL;
            const uint8_t* b = job.packed + sums_size(job.n) + panel * panel_size(job.k);
            const int32_t* sums = reinterpret_cast<const int32_t*>(job.packed) + first;
            float scale[PANEL] = {}, bias[PANEL] = {}, layer_scale[PANEL];
            for (float& value : layer_scale) value = 1.0f;
            const size_t bytes = sizeof(float) * static_cast<size_t>(width);
            memcpy(scale, job.weight_scale + first, bytes);
            if (job.bias) memcpy(bias, job.bias + first, bytes);
            if (job.layer_scale) memcpy(layer_scale, job.layer_scale + first, bytes);
            const Channels channels = {sums, scale, bias, job.accumulate ? layer_scale : nullptr};
            const int64_t next = panel + 1 < panel_end ? 1 : 1 + job.between;
            const uint8_t* ahead = b + next * panel_size(job.k);
            const int64_t share = panel_size(job.k) / ((row_end - row - 1) / TILE + 1);
            for (int64_t r = row; r < row_end; r += TILE, ahead += share)
                one_tile(job, r, row_end, b, channels, first, {ahead, fetched_each(share, job.k)});
        }
    }

    // Bytes a group that fetch `bytes` in all; at most a cache line, of which one is fetched at a time.
    static int64_t fetched_each(int64_t bytes, int64_t k) {
        return at_most((bytes - 1) / (round_up(k, GROUP) / GROUP) + 1, 64);
    }

    static void one_tile(const Linear& job, int64_t row, int64_t row_end, const uint8_t* b, const Channels& channels,
                         int64_t first, Ahead ahead) {
        const int64_t width = at_most(job.n - first, PANEL);
        const int64_t rows = row_end - row < TILE ? row_end - row : TILE, groups = round_up(job.k, GROUP) / GROUP;
        const int64_t stride = row_stride(job.k) / static_cast<int64_t>(sizeof(Act));
        const bool whole = width == PANEL;
        const size_t bytes = sizeof(float) * static_cast<size_t>(width);
        float buffer[TILE * PANEL], *y = job.y + row * job.ldy + first, *to = whole ? y : buffer;
        const int64_t ldto = whole ? job.ldy : PANEL;
        for (int64_t r = 0; r < rows && !whole && job.accumulate; r++) memcpy(to + r * ldto, y + r * job.ldy, bytes);
        tile_of<TILE>(rows)(row_of(job.rows, job.k, row), stride, b, groups, job.rows.scale + row,
                            job.rows.zero_point + row, channels, to, ldto, ahead);
        if (job.activation != CLIPQ_NO_ACTIVATION) activate(to, ldto, rows, job.activation);
        for (int64_t r = 0; r < rows && !whole; r++) memcpy(y + r * job.ldy, to + r * ldto, bytes);
    }

    // After the tile, while it is in the first-level cache: the tile itself has no register to spare.
    static __attribute__((noinline)) void activate(float* y, int64_t ldy, int64_t rows, int activation) {
        switch (activation) {
            case CLIPQ_GELU: return each<gelu<Isa>>(y, ldy, rows);
            case CLIPQ_GELU_TANH: return each<gelu_tanh<Isa>>(y, ldy, rows);
            case CLIPQ_QUICK_GELU: return each<quick_gelu<Isa>>(y, ldy, rows);
            case CLIPQ_SILU: return each<silu<Isa>>(y, ldy, rows);
        }
    }

    template <Floats (*FUNCTION)(Floats)>
    static void each(float* y, int64_t ldy, int64_t rows) {
        for (int64_t r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) {
                const Floats value = FUNCTION(load<Floats>(y + r * ldy + v * LANES));
                memcpy(y + r * ldy + v * LANES, &value, sizeof value);
            }
    }
};

}  // namespace
