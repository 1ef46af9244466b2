// One head of integer attention (attention_int8.h): where its parts lie, and how rows of floats become whole numbers.
#pragma once

#include <type_traits>

#include "vectors.h"

namespace {

// Scratch memory of a head.
template <class Isa>
struct IntegerHead {
    using Act = typename Isa::Act;
    static constexpr int LANES = Isa::LANES, TILE = Isa::TILE;
    static constexpr int64_t PANEL = Isa::VECTORS * LANES;
    static constexpr int64_t PAIRED = 2 * LANES;  // keys of which i and i + LANES make a pair

    int64_t across, along;    // keys and channels, rounded up
    int8_t *keys, *row;       // [across / PANEL][along / GROUP][PANEL][GROUP]; a key [along]
    int32_t *start, *values;  // [across]: what takes OFFSET back; [across / 2][along]
    float *key_scale, *value_scale, *value_steps;  // [across], [along], [along]
    float *scores, *mixed;                         // [TILE][across], then pairs of shares in its place; [TILE][along]
    Act* queries;                                  // [TILE][along]
    int64_t floats = 0;                            // all of it

    IntegerHead(float* memory, int64_t count, int64_t dim)
        : across(round_up(count, PANEL > PAIRED ? PANEL : PAIRED)), along(round_up(dim, LANES)) {
        char* next = reinterpret_cast<char*>(memory);
        const auto take = [&](auto*& part, int64_t count) {
            part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(next + 4 * floats);
            floats += round_up(count * static_cast<int64_t>(sizeof *part), 64) / 4;
        };
        take(keys, across * along);
        take(row, along);
        take(start, across);
        take(values, across / 2 * along);
        take(key_scale, across);
        take(value_scale, along);
        take(value_steps, along);
        take(scores, TILE * across);
        take(mixed, TILE * along);
        take(queries, TILE * along);
    }
};

// The sizes of floats, and floats as whole numbers.
template <class Isa>
struct Whole {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    static constexpr int LANES = Isa::LANES;

    // The largest size of a value, as the bits of a float32: those of NaN and infinity are above all others.
    static constexpr int32_t NOT_FINITE = 0x7F800000;
    static Ints size_of(Floats x) { return reinterpret_cast<Ints>(x) & 0x7FFFFFFF; }
    static Ints larger(Ints a, Ints b) { return a > b ? a : b; }

    // The vector at x + at of a row of `dim` values, zeros beyond it.
    static Floats part(const float* x, int64_t at, int64_t dim) { return load_some<Isa>(x + at, dim - at); }

    // x * steps rounded to whole numbers, for |x * steps| < 2^22.
    static Ints rounded(Floats x, Floats steps) {
        return reinterpret_cast<Ints>(x * steps + ROUNDER) - ROUNDER_BITS;
    }

    // Where the vector at channel c of a head begins: the last one overlaps the one before it rather than the row's end.
    static int64_t within(int64_t c, int64_t dim) { return dim < LANES ? 0 : at_most(c, dim - LANES); }
};

}  // namespace
