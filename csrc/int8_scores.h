// Scores of queries and keys that are int8, each row with a scale of its own.
#pragma once

#include "int8_head.h"

namespace {

template <class Isa>
struct IntegerScores : Whole<Isa> {
    using Act = typename Isa::Act;
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES, GROUP = Isa::GROUP, TILE = Isa::TILE, VECTORS = Isa::VECTORS;
    using Head = IntegerHead<Isa>;
    static constexpr int64_t PANEL = Head::PANEL;
    using Whole<Isa>::larger, Whole<Isa>::part, Whole<Isa>::rounded, Whole<Isa>::size_of, Whole<Isa>::within;

    static float as_float(int32_t bits) {
        float x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }

    // A row [dim] as q + OFFSET in `out` [along], q being 0 beyond the row. Its scale; NaN if a value is not finite.
    template <class T, int OFFSET>
    static float quantize(const float* x, int64_t dim, T* out) {
        typedef T Narrow __attribute__((vector_size(LANES * sizeof(T))));
        Ints most = {};
        for (int64_t i = 0; i < dim; i += LANES) most = larger(most, size_of(part(x, within(i, dim), dim)));
        const int32_t largest = folded<Largest, int32_t>(most);
        if (largest >= Whole<Isa>::NOT_FINITE) return __builtin_nanf("");
        const float reach = as_float(largest);
        const Floats steps = splat<Isa>(reach > 1e-30f ? 127.0f / reach : 0.0f);
        for (int64_t i = 0; i < dim; i += LANES) {
            const int64_t at = within(i, dim);
            const Narrow q = __builtin_convertvector(rounded(part(x, at, dim), steps) + OFFSET, Narrow);
            memcpy(out + at, &q, sizeof q);
        }
        return reach / 127.0f;
    }

    // How many keys were packed: all, or those before the first that is not finite.
    static int64_t pack_keys(const Attention& job, const Head& head) {
        const int64_t groups = (job.dim - 1) / GROUP + 1;
        memset(head.row, 0, static_cast<size_t>(head.along));
        int64_t j = 0;
        for (; j < job.keys; j++) {
            const float scale = quantize<int8_t, 0>(job.k + j * job.ldkv, job.dim, head.row);
            if (scale != scale) break;
            int8_t* to = head.keys + j / PANEL * PANEL * head.along + j % PANEL * GROUP;
            for (int64_t g = 0; g < groups; g++) memcpy(to + g * PANEL * GROUP, head.row + g * GROUP, GROUP);
            head.key_scale[j] = scale;
        }
        for (int64_t k = 0; k < j; k += LANES) take_back(head, k, groups);
        return j;
    }

    // What the OFFSET of queries adds to the scores of LANES keys from `k` on.
    static void take_back(const Head& head, int64_t k, int64_t groups) {
        Act ones[GROUP];
        for (Act& one : ones) one = 1;
        const int8_t* w = head.keys + k / PANEL * PANEL * head.along + k % PANEL * GROUP;
        Ints sum = {};
        for (int64_t g = 0; g < groups && Isa::OFFSET; g++, w += PANEL * GROUP)
            Isa::dot(sum, Isa::acts(ones), Isa::weights(w));
        sum *= -Isa::OFFSET;
        memcpy(head.start + k, &sum, sizeof sum);
    }

    template <int ROWS, int COLS>
    static __attribute__((noinline)) void score_tile(const Act* q, int64_t along, const int8_t* w, int64_t groups,
                                                     const int32_t* start, const float* scale, float* out,
                                                     int64_t ldo) {
        Ints sum[ROWS][COLS];
#pragma GCC unroll 8
        for (int v = 0; v < COLS; v++) {
            const Ints first = load<Ints>(start + v * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) sum[r][v] = first;
        }
#pragma GCC unroll 1
        for (int64_t g = 0; g < groups; g++, w += PANEL * GROUP, q += GROUP) {
            typename Isa::Weights weights[COLS];
#pragma GCC unroll 8
            for (int v = 0; v < COLS; v++) weights[v] = Isa::weights(w + v * LANES * GROUP);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const typename Isa::Acts acts = Isa::acts(q + r * along);
#pragma GCC unroll 8
                for (int v = 0; v < COLS; v++) Isa::dot(sum[r][v], acts, weights[v]);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
            for (int v = 0; v < COLS; v++) {
                const Floats value = __builtin_convertvector(sum[r][v], Floats) * load<Floats>(scale + v * LANES);
                memcpy(out + r * ldo + v * LANES, &value, sizeof value);
            }
    }

    using ScoreTile = void (*)(const Act*, int64_t, const int8_t*, int64_t, const int32_t*, const float*, float*,
                               int64_t);

    template <int ROWS, int COLS>
    static ScoreTile score_tile_of(int64_t rows, int64_t columns) {
        if constexpr (ROWS > 1)
            if (rows < ROWS) return score_tile_of<ROWS - 1, COLS>(rows, columns);
        if constexpr (COLS > 1)
            if (columns < COLS) return score_tile_of<ROWS, COLS - 1>(rows, columns);
        return score_tile<ROWS, COLS>;
    }

    // scores[rows, seen] of the head's queries, each still to be multiplied by its query's scale.
    static void score(const Head& head, int64_t rows, int64_t seen, int64_t dim) {
        const int64_t groups = (dim - 1) / GROUP + 1;
        for (int64_t j = 0; j < seen; j += PANEL)
            score_tile_of<TILE, VECTORS>(rows, (seen - j - 1) / LANES + 1)(
                head.queries, head.along, head.keys + j * head.along, groups, head.start + j, head.key_scale + j,
                head.scores + j, head.across);
    }
};

}  // namespace
