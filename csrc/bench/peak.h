// The most that a processor can do, for the steps of a tower to be measured by.
#pragma once

#include <cstdint>

namespace clipq {

// Runs `rounds` of the dot products of a register tile on operands that stay in the first-level cache.
struct Peak {
    int64_t operations;  // a round: 2 for each product and its addition
    void (*run)(int64_t rounds);
};

extern const Peak peak_portable, peak_avx2, peak_avx_vnni, peak_avx512_vnni, peak_neon_dotprod;

}  // namespace clipq
