// What queries get of the values: products of shares and values, both int16, added in pairs.
//
// Traits beyond those of gemm.h:
//   dot_pairs(sum, a, b)   sum[lane] += a.low * b.low + a.high * b.high, of the int16 halves of each int32 lane
//   INTEGERS_PAY           whether that takes less time than the floats' products
//   HALVES, Half, HalfFloats, dot_pairs(half, a, b)   whether there is the same for half a vector, at less cost
#pragma once

#include "int8_head.h"

namespace {

template <class Isa>
struct Mixing : Whole<Isa> {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    using Half = typename Isa::Half;
    using HalfFloats = typename Isa::HalfFloats;
    using Head = IntegerHead<Isa>;
    using Whole<Isa>::larger, Whole<Isa>::part, Whole<Isa>::rounded, Whole<Isa>::size_of, Whole<Isa>::within;
    static constexpr int LANES = Isa::LANES, TILE = Isa::TILE, VECTORS = Isa::VECTORS;
    static constexpr int64_t PAIRED = Head::PAIRED;
    static constexpr int32_t MOST_VALUE = 255;

    // The largest size of each channel's values in the rows [0, keys), as steps and scale; whether all are finite.
    static bool value_ranges(const Attention& job, int64_t keys, const Head& head) {
        Ints any = {};
        for (int64_t c = 0; c < head.along; c += LANES) {
            Ints most = {};
            for (int64_t j = 0; j < keys; j++)
                most = larger(most, size_of(part(job.v + j * job.ldkv, within(c, job.dim), job.dim)));
            any = larger(any, most);
            Floats reach = reinterpret_cast<Floats>(most);
            reach = reach > splat<Isa>(1e-30f) ? reach : splat<Isa>(1e-30f);
            const Floats steps = static_cast<float>(MOST_VALUE) / reach, scale = reach / static_cast<float>(MOST_VALUE);
            memcpy(head.value_steps + c, &steps, sizeof steps);
            memcpy(head.value_scale + c, &scale, sizeof scale);
        }
        return folded<Largest, int32_t>(any) < Whole<Isa>::NOT_FINITE;
    }

    // How many of `keys` values were packed: all, or those before the first that is not finite.
    static int64_t pack_values(const Attention& job, int64_t keys, const Head& head) {
        while (keys > 0 && !value_ranges(job, keys, head)) keys = first_odd(job, keys);
        const auto value = [&](int64_t j, int64_t c, Floats steps) {
            return j < keys ? rounded(part(job.v + j * job.ldkv, within(c, job.dim), job.dim), steps) : Ints{};
        };
        int32_t* to = head.values;
        for (int64_t first = 0; first < job.keys; first += PAIRED)
            for (int64_t j = first; j < first + LANES; j++, to += head.along)
                for (int64_t c = 0; c < head.along; c += LANES) {
                    const Floats steps = load<Floats>(head.value_steps + c);
                    const Ints pair = (value(j, c, steps) & 0xFFFF) | (value(j + LANES, c, steps) << 16);
                    memcpy(to + c, &pair, sizeof pair);
                }
        return keys;
    }

    static int64_t first_odd(const Attention& job, int64_t keys) {
        for (int64_t j = 0; j < keys; j++)
            for (int64_t i = 0; i < job.dim; i++)
                if (!__builtin_isfinite(job.v[j * job.ldkv + i])) return j;
        return keys;
    }

    // mixed[ROWS, COLS vectors] = shares @ values; of one column more only the upper half, where HALF is 1.
    template <int ROWS, int COLS, int HALF>
    static __attribute__((noinline)) void mix_tile(const int32_t* shares, int64_t lds, const int32_t* values,
                                                   int64_t along, int64_t pairs, float* mixed) {
        Ints sum[ROWS][COLS] = {};
        Half half[ROWS] = {};
#pragma GCC unroll 1
        for (int64_t i = 0; i < pairs; i++, values += along) {
            Ints columns[COLS];
#pragma GCC unroll 8
            for (int v = 0; v < COLS; v++) columns[v] = load<Ints>(values + v * LANES);
            const Half last = load<Half>(values + (HALF ? COLS * LANES + LANES / 2 : 0));
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const Ints pair = Ints{} + shares[r * lds + i];
#pragma GCC unroll 8
                for (int v = 0; v < COLS; v++) Isa::dot_pairs(sum[r][v], pair, columns[v]);
                if constexpr (HALF) Isa::dot_pairs(half[r], pair, last);
            }
        }
        const auto put = [](float* to, auto value) { memcpy(to, &value, sizeof value); };
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            float* to = mixed + r * along;
#pragma GCC unroll 8
            for (int v = 0; v < COLS; v++) put(to + v * LANES, __builtin_convertvector(sum[r][v], Floats));
            if constexpr (HALF) put(to + COLS * LANES + LANES / 2, __builtin_convertvector(half[r], HalfFloats));
        }
    }

    using MixTile = void (*)(const int32_t*, int64_t, const int32_t*, int64_t, int64_t, float*);

    template <int ROWS, int COLS, int HALF>
    static MixTile mix_tile_of(int64_t rows, int64_t columns) {
        if constexpr (ROWS > 1)
            if (rows < ROWS) return mix_tile_of<ROWS - 1, COLS, HALF>(rows, columns);
        if constexpr (COLS > 1)
            if (columns < COLS) return mix_tile_of<ROWS, COLS - 1, HALF>(rows, columns);
        return mix_tile<ROWS, COLS, HALF>;
    }

    // Whether half a vector holds the channels beyond the last whole one.
    static bool ends_in_half(int64_t dim) { return Isa::HALVES && dim > LANES && (dim - 1) % LANES < LANES / 2; }

    // How many pairs the keys before `seen` take part in: of a block begun, those of its first half hold all of its keys.
    static int64_t pairs_of(int64_t seen) { return seen / PAIRED * LANES + at_most(seen % PAIRED, LANES); }

    static void mix(const Head& head, int64_t rows, int64_t seen, int64_t dim) {
        const int32_t* shares = reinterpret_cast<const int32_t*>(head.scores);
        const int64_t vectors = head.along / LANES, parts = (vectors - 1) / VECTORS + 1;
        const int64_t each = (vectors - 1) / parts + 1;  // even: a tile of one column waits for its sums
        for (int64_t v = 0; v < vectors; v += each) {
            const int64_t columns = at_most(vectors - v, each);
            const bool half = ends_in_half(dim) && v + columns == vectors && columns > 1;
            const auto tile = half ? mix_tile_of<TILE, VECTORS, Isa::HALVES>(rows, columns - 1)
                                   : mix_tile_of<TILE, VECTORS, 0>(rows, columns);
            tile(shares, head.across, head.values + v * LANES, head.along, pairs_of(seen), head.mixed + v * LANES);
        }
    }

    static void write(const Head& head, const float* mixed, float weight, int64_t dim, float* out) {
        const int64_t half = ends_in_half(dim) ? LANES / 2 : 0;  // of the last vector, which was not computed
        for (int64_t c = 0; c < dim; c += LANES) {
            const Floats value = load<Floats>(mixed + c) * weight * load<Floats>(head.value_scale + c);
            const int64_t skipped = c + LANES > dim ? half : 0;
            memcpy(out + within(c, dim) + skipped, reinterpret_cast<const float*>(&value) + skipped,
                   sizeof(float) * static_cast<size_t>(at_most(dim, LANES) - skipped));
        }
    }
};

}  // namespace
