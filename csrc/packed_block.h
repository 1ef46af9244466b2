// A transformer block in one piece of memory: its sizes, then its tensors, the weights packed for one path.
#pragma once

#include "clipq.h"
#include "kernel.h"

namespace clipq {

constexpr uint32_t MAGIC = 0x71504C46;  // changes with the layout

struct PackedMatrix {
    int64_t packed, scale, bias;  // where in the block, in bytes; bias 0: none
    int64_t n, k;
    float input_scale;  // of the rows that it multiplies; 0: each row by its own range
    int32_t input_zero_point;
};

struct PackedNorm {
    int64_t weight, bias;  // where in the block, in bytes; weight 0: there is no norm
    float eps;
    int32_t kind;  // enum clipq_norm_kind
};

// What a packed block begins with. Everything else follows, 64-byte aligned.
struct PackedBlock {
    uint32_t magic;
    int32_t path, activation, symmetric, gated, rotation, attention;
    int64_t size, width, hidden, heads;
    PackedNorm ln_1, ln_2, q_norm, k_norm, attn_norm, mlp_norm;
    int64_t ls_1, ls_2;  // in bytes; 0: none
    PackedMatrix qkv, out_proj, fc1, fc2;

    int64_t dim() const { return width / heads; }
    bool turns() const { return rotation != CLIPQ_NO_ROTATION || q_norm.weight || k_norm.weight; }
};

inline const float* floats(const PackedBlock& block, int64_t at) {
    return at ? reinterpret_cast<const float*>(reinterpret_cast<const char*>(&block) + at) : nullptr;
}

// Rows of x, `ldx` apart, through a norm if there is one.
inline Source normalized(const PackedBlock& block, const PackedNorm& norm, const float* x, int64_t ldx, int64_t k) {
    return {x, ldx, k, norm.weight ? norm.eps : -1.0f, floats(block, norm.weight), floats(block, norm.bias),
            norm.kind == CLIPQ_LAYER_NORM};
}

inline Grid grid_of(const PackedBlock& block, const PackedMatrix& matrix) {
    return {block.symmetric != 0, matrix.input_scale, matrix.input_zero_point};
}

}  // namespace clipq
