#include <cstring>

#include "blocks.h"
#include "packed_block.h"

namespace clipq {

namespace {

// Lays a block out; with `out`, writes it there.
class Packer {
  public:
    Packer(int path, const Kernel& kernel, const clipq_block& block, uint8_t* out)
        : kernel_(kernel), out_(out), used_(round_up(sizeof(PackedBlock), 64)) {
        const int64_t d = block.width, h = block.hidden;
        PackedBlock header = {};
        header.magic = MAGIC;
        header.path = path;
        header.activation = block.activation;
        header.symmetric = block.symmetric;
        header.width = d;
        header.hidden = h;
        header.heads = block.heads;
        header.gated = block.gated;
        header.rotation = block.rotation;
        header.attention = block.attention;
        header.ln_1 = norm(block.ln_1, d);
        header.ln_2 = norm(block.ln_2, d);
        header.q_norm = norm(block.q_norm, d / block.heads);
        header.k_norm = norm(block.k_norm, d / block.heads);
        header.attn_norm = norm(block.attn_norm, d);
        header.mlp_norm = norm(block.mlp_norm, h);
        header.ls_1 = vector(block.ls_1, d);
        header.ls_2 = vector(block.ls_2, d);
        header.qkv = matrix(block.qkv, 3 * d, d);
        header.out_proj = matrix(block.out_proj, d, d);
        header.fc1 = matrix(block.fc1, block.gated ? 2 * h : h, d);
        header.fc2 = matrix(block.fc2, d, h);
        header.size = used_;
        if (out) memcpy(out, &header, sizeof header);
    }

    int64_t size() const { return used_; }

  private:
    int64_t take(int64_t bytes) {
        const int64_t at = used_;
        used_ += round_up(bytes, 64);
        return at;
    }

    int64_t vector(const float* values, int64_t count) {
        if (!values) return 0;
        const int64_t bytes = count * static_cast<int64_t>(sizeof(float)), at = take(bytes);
        if (out_) memcpy(out_ + at, values, static_cast<size_t>(bytes));
        return at;
    }

    int64_t zeros(int64_t count) {
        const int64_t bytes = count * static_cast<int64_t>(sizeof(float)), at = take(bytes);
        if (out_) memset(out_ + at, 0, static_cast<size_t>(bytes));
        return at;
    }

    // With a bias, of zeros where it has none.
    PackedNorm norm(const clipq_norm& from, int64_t count) {
        if (!from.weight) return {0, 0, 0.0f, 0};
        const int64_t weight = vector(from.weight, count);
        const int64_t bias = from.bias ? vector(from.bias, count) : zeros(count);
        return {weight, bias, from.eps, from.kind};
    }

    PackedMatrix matrix(const clipq_matrix& from, int64_t n, int64_t k) {
        const int64_t at = take(static_cast<int64_t>(kernel_.packed_size(n, k)));
        if (out_) kernel_.pack(from.weight, n, k, out_ + at);
        const int64_t scale = vector(from.scale, n);
        return {at, scale, vector(from.bias, n), n, k, from.input_scale, from.input_zero_point};
    }

    const Kernel& kernel_;
    uint8_t* out_;
    int64_t used_;
};

bool quantizes(const clipq_block& block, const clipq_matrix& matrix) {
    return Grid(block.symmetric != 0, matrix.input_scale, matrix.input_zero_point).valid();
}

bool is_norm(const clipq_norm& norm, bool needed = false) {
    return norm.weight ? norm.eps >= 0 && norm.kind >= 0 && norm.kind < CLIPQ_NORMS : !needed;
}

bool norms_fit(const clipq_block& block) {
    return is_norm(block.ln_1, true) && is_norm(block.ln_2, true) && is_norm(block.q_norm) && is_norm(block.k_norm) &&
           is_norm(block.attn_norm) && is_norm(block.mlp_norm);
}

bool can_rotate(const clipq_block& block) {
    if (block.rotation == CLIPQ_NO_ROTATION) return true;
    return block.rotation > 0 && block.rotation < CLIPQ_ROTATIONS && block.width / block.heads % 2 == 0;
}

bool can_pack(const clipq_block& block) {
    const int64_t d = block.width, h = block.hidden;
    return d >= 1 && h >= 1 && d <= CLIPQ_MAX_K && h <= CLIPQ_MAX_K && block.heads >= 1 && d % block.heads == 0 &&
           block.activation >= 0 && block.activation < CLIPQ_ACTIVATIONS && block.attention >= 0 &&
           block.attention < CLIPQ_ATTENTIONS && norms_fit(block) && can_rotate(block) &&
           quantizes(block, block.qkv) && quantizes(block, block.out_proj) && quantizes(block, block.fc1) &&
           quantizes(block, block.fc2);
}

}  // namespace

}  // namespace clipq

using namespace clipq;

size_t clipq_block_size(int path, const clipq_block* block) {
    const Kernel* kernel = usable_kernel(path);
    return kernel && can_pack(*block) ? static_cast<size_t>(Packer(path, *kernel, *block, nullptr).size()) : 0;
}

int clipq_pack_block(int path, const clipq_block* block, uint8_t* out) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!can_pack(*block)) return CLIPQ_BAD_SIZE;
    Packer(path, *kernel, *block, out);
    return CLIPQ_OK;
}

int64_t clipq_block_width(const uint8_t* packed, size_t size) {
    PackedBlock header;
    if (size < sizeof header) return 0;
    memcpy(&header, packed, sizeof header);
    const bool ours = header.magic == MAGIC && header.size == static_cast<int64_t>(size);
    return ours && usable_kernel(header.path) ? header.width : 0;
}
