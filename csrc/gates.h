// Gated MLPs (Shazeer, arXiv:2002.05202): one half of the inner row, activated, times the other half.
#pragma once

#include "vectors.h"

namespace {

template <class Isa>
typename Isa::Floats activated(typename Isa::Floats x, int activation) {
    switch (activation) {
        case CLIPQ_GELU: return gelu<Isa>(x);
        case CLIPQ_GELU_TANH: return gelu_tanh<Isa>(x);
        case CLIPQ_QUICK_GELU: return quick_gelu<Isa>(x);
        case CLIPQ_SILU: return silu<Isa>(x);
        default: return x;
    }
}

template <class Isa>
void gate(float* row, int64_t k, int activation) {
    for (int64_t i = 0; i < k; i += Isa::LANES) {
        const int64_t left = k - i;
        const auto open = activated<Isa>(load_some<Isa>(row + i, left), activation);
        store_some<Isa>(row + i, open * load_some<Isa>(row + k + i, left), left);
    }
}

}  // namespace
