// A transformer block in one piece of memory: its sizes, then its tensors, the weights packed for one path.
#pragma once

#include "kernel.h"

namespace clipq {

constexpr uint32_t MAGIC = 0x71504C44;  // changes with the layout

struct PackedMatrix {
    int64_t packed, scale, bias;  // where in the block, in bytes; bias 0: none
    int64_t n, k;
    float input_scale;  // of the rows that it multiplies; 0: each row by its own range
    int32_t input_zero_point;
};

// What a packed block begins with. Everything else follows, 64-byte aligned.
struct PackedBlock {
    uint32_t magic;
    int32_t path, activation, symmetric;
    int64_t size, width, hidden, heads;
    float eps_1, eps_2;
    int64_t ln_1_weight, ln_1_bias, ln_2_weight, ln_2_bias, ls_1, ls_2;  // in bytes; ls 0: none
    PackedMatrix qkv, out_proj, fc1, fc2;
};

inline const float* floats(const PackedBlock& block, int64_t at) {
    return at ? reinterpret_cast<const float*>(reinterpret_cast<const char*>(&block) + at) : nullptr;
}

inline Grid grid_of(const PackedBlock& block, const PackedMatrix& matrix) {
    return {block.symmetric != 0, matrix.input_scale, matrix.input_zero_point};
}

}  // namespace clipq
