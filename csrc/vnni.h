// What the x86 VNNI instruction sets share. vpdpbusd multiplies unsigned by signed bytes and adds four neighbours into
// an int32 without saturating, so activations are stored as q + 128 and weights as they are.
#pragma once

#include "isa.h"

namespace {

template <int WIDTH, int PANEL_VECTORS>
struct Vnni {
    static constexpr bool NARROWS = false;
    static constexpr int LANES = WIDTH, GROUP = 4, TILE = 6, VECTORS = PANEL_VECTORS, OFFSET = 128;
    typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
    typedef float Floats __attribute__((vector_size(4 * WIDTH)));
    using Act = uint8_t;
    using Acts = Ints;
    using Weights = Ints;

    static Weights weights(const int8_t* p) {
        Ints w;
        memcpy(&w, p, sizeof w);
        return w;
    }
    static Acts acts(const uint8_t* p) {
        int32_t four;
        memcpy(&four, p, sizeof four);
        return Ints{} + four;
    }
};

}  // namespace
