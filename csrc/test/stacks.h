// Random stacks of transformer blocks, and what clipq_run_blocks makes of them.
#pragma once

#include "plain.h"

namespace {

// Weight and bias, or no bias, of a LayerNorm or an RMSNorm; or no norm at all.
struct Norm {
    Values weight, bias;
    float eps;
    int kind;
    bool is_there, has_bias;

    Norm(Random& random, int64_t width, bool needed)
        : weight(random.values(width, 0.5f, 1.5f)), bias(random.values(width, -0.2f, 0.2f)),
          eps(random.chance(2) ? 1e-5f : 1e-6f), kind(static_cast<int>(random.from_to(0, CLIPQ_NORMS - 1))),
          is_there(needed || random.chance(3)), has_bias(random.chance(2)) {}

    clipq_norm view() const {
        return {is_there ? weight.data() : nullptr, has_bias ? bias.data() : nullptr, eps, kind};
    }
};

struct Block {
    int64_t width, heads, hidden;
    int activation, rotation, attention;
    bool symmetric, scaled, gated;
    Matrix qkv, out_proj, fc1, fc2;
    std::vector<Grid> grids;  // of the four, some given and some not
    Norm ln_1, ln_2, q_norm, k_norm, attn_norm, mlp_norm;
    Values ls_1, ls_2;

    Block(Random& random, int64_t width_, int64_t heads_)
        : width(width_), heads(heads_), hidden(random.size(3 * width)),
          activation(static_cast<int>(random.from_to(0, CLIPQ_ACTIVATIONS - 1))),
          rotation(width / heads % 2 ? CLIPQ_NO_ROTATION : static_cast<int>(random.from_to(0, CLIPQ_ROTATIONS - 1))),
          attention(static_cast<int>(random.from_to(0, CLIPQ_ATTENTIONS - 1))),
          symmetric(random.chance(2)), scaled(random.chance(2)), gated(random.chance(2)),
          qkv(random, 3 * width, width), out_proj(random, width, width),
          fc1(random, gated ? 2 * hidden : hidden, width), fc2(random, width, hidden), ln_1(random, width, true),
          ln_2(random, width, true), q_norm(random, width / heads, false), k_norm(random, width / heads, false),
          attn_norm(random, width, false), mlp_norm(random, hidden, false), ls_1(random.values(width, 0, 1)),
          ls_2(random.values(width, 0, 1)) {
        for (int i = 0; i < 4; i++) grids.push_back(random_grid(random, symmetric, 3));
    }

    clipq_block view() const {
        return {width, hidden, heads, activation, symmetric, gated, rotation, attention, ln_1.view(), ln_2.view(),
                q_norm.view(), k_norm.view(), attn_norm.view(), mlp_norm.view(), qkv.view(grids[0]),
                out_proj.view(grids[1]), fc1.view(grids[2]), fc2.view(grids[3]), scaled ? ls_1.data() : nullptr,
                scaled ? ls_2.data() : nullptr};
    }

    Packed packed(int path) const {
        const clipq_block one = view();
        Packed all(clipq_block_size(path, &one));
        if (clipq_pack_block(path, &one, all.data())) std::abort();
        return all;
    }
};

struct Stack {
    int64_t width, dim, tokens, prefix;
    int mask;
    std::vector<Block> blocks;
    std::vector<int64_t> offsets;
    Values x, cos, sin;

    Stack(Random& random, int64_t heads, int64_t dim_, int64_t batch, int64_t longest)
        : width(heads * dim_), dim(dim_), prefix(random.from_to(0, 3)),
          mask(static_cast<int>(random.from_to(0, CLIPQ_MASKS - 1))), offsets(random.offsets(batch, longest)),
          x(random.values(offsets.back() * width, -2, 2)) {
        tokens = at_least((Sequences{offsets.data(), batch}).longest() - prefix, 0);
        cos = random.values(tokens * dim, -1, 1), sin = random.values(tokens * dim, -1, 1);
        for (int64_t count = random.from_to(1, 3); count > 0; count--) blocks.emplace_back(random, width, heads);
    }

    int64_t batch() const { return static_cast<int64_t>(offsets.size()) - 1; }
    int64_t rows() const { return offsets.back(); }
    // `there` even where there is no row: NULL would say that there are no tables.
    clipq_rotary rotary() const {
        static const float there = 0;
        return {tokens ? cos.data() : &there, tokens ? sin.data() : &there, tokens, dim, prefix};
    }

    // All rows, or those of `keep`; empty if the call fails.
    Values run(int path, int threads, const std::vector<int64_t>* keep = nullptr) const {
        std::vector<Packed> packed;
        for (const Block& block : blocks) packed.push_back(block.packed(path));
        std::vector<const uint8_t*> all;
        for (const Packed& one : packed) all.push_back(one.data());
        const clipq_rotary tables = rotary();
        const int64_t nothing = 0, kept = keep ? static_cast<int64_t>(keep->size()) : 0;
        const int64_t* rows_kept = !keep ? nullptr : keep->empty() ? &nothing : keep->data();
        Values y(static_cast<size_t>((keep ? kept : rows()) * width), UNTOUCHED);
        const int status = clipq_run_blocks(threads, all.data(), static_cast<int64_t>(all.size()), x.data(),
                                            offsets.data(), batch(), mask, rows_kept, kept, &tables, y.data());
        return status ? Values() : y;
    }
};

}  // namespace
