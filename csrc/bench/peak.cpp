// Compiled once for each instruction set, with its flags, its source as CLIPQ_SOURCE, the name of its traits there as
// CLIPQ_TRAITS, its kernel under another name, and the name of the result as CLIPQ_PEAK.
#include CLIPQ_SOURCE

#include "peak.h"

namespace {

// Out of the reach of the optimizer: what is read anew every round, and what is kept of it all.
alignas(64) int8_t operands[4096];
volatile int32_t kept;

template <class Isa>
void dots(int64_t rounds) {
    using Act = typename Isa::Act;
    typename Isa::Ints sum[Isa::TILE][Isa::VECTORS] = {};
#pragma GCC unroll 1
    for (; rounds > 0; rounds--) {
        asm volatile("" ::: "memory");
        typename Isa::Weights weights[Isa::VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < Isa::VECTORS; v++) weights[v] = Isa::weights(operands + v * Isa::LANES * Isa::GROUP);
#pragma GCC unroll 16
        for (int r = 0; r < Isa::TILE; r++) {
            const typename Isa::Acts acts = Isa::acts(reinterpret_cast<const Act*>(operands + 2048) + r * Isa::GROUP);
#pragma GCC unroll 8
            for (int v = 0; v < Isa::VECTORS; v++) Isa::dot(sum[r][v], acts, weights[v]);
        }
    }
    typename Isa::Ints all = {};
#pragma GCC unroll 16
    for (int r = 0; r < Isa::TILE; r++)
#pragma GCC unroll 8
        for (int v = 0; v < Isa::VECTORS; v++) all ^= sum[r][v];
    kept = all[0];
}

template <class Isa>
constexpr int64_t operations() {
    return 2 * Isa::TILE * Isa::VECTORS * Isa::LANES * Isa::GROUP;
}

}  // namespace

namespace clipq {
const Peak CLIPQ_PEAK = {operations<CLIPQ_TRAITS>(), dots<CLIPQ_TRAITS>};
}  // namespace clipq
