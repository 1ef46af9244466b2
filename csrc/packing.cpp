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
        header.eps_1 = block.eps_1;
        header.eps_2 = block.eps_2;
        header.ln_1_weight = vector(block.ln_1_weight, d);
        header.ln_1_bias = vector(block.ln_1_bias, d);
        header.ln_2_weight = vector(block.ln_2_weight, d);
        header.ln_2_bias = vector(block.ln_2_bias, d);
        header.ls_1 = vector(block.ls_1, d);
        header.ls_2 = vector(block.ls_2, d);
        header.qkv = matrix(block.qkv, 3 * d, d);
        header.out_proj = matrix(block.out_proj, d, d);
        header.fc1 = matrix(block.fc1, h, d);
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

bool can_pack(const clipq_block& block) {
    const int64_t d = block.width, h = block.hidden;
    return d >= 1 && h >= 1 && d <= CLIPQ_MAX_K && h <= CLIPQ_MAX_K && block.heads >= 1 && d % block.heads == 0 &&
           block.activation >= 0 && block.activation < CLIPQ_ACTIVATIONS && block.eps_1 >= 0 && block.eps_2 >= 0 &&
           block.ln_1_weight && block.ln_1_bias && block.ln_2_weight && block.ln_2_bias && quantizes(block, block.qkv) &&
           quantizes(block, block.out_proj) && quantizes(block, block.fc1) && quantizes(block, block.fc2);
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
