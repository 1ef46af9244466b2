// Random stacks of transformer blocks, and what clipq_run_blocks makes of them.
#pragma once

#include "plain.h"

namespace {

struct Block {
    int64_t width, heads, hidden;
    int activation;
    bool symmetric, scaled;
    Matrix qkv, out_proj, fc1, fc2;
    std::vector<Grid> grids;  // of the four, some given and some not
    Values weight_1, bias_1, weight_2, bias_2, ls_1, ls_2;

    Block(Random& random, int64_t width_, int64_t heads_)
        : width(width_), heads(heads_), hidden(random.size(3 * width)),
          activation(static_cast<int>(random.from_to(0, CLIPQ_ACTIVATIONS - 1))), symmetric(random.chance(2)),
          scaled(random.chance(2)), qkv(random, 3 * width, width), out_proj(random, width, width),
          fc1(random, hidden, width), fc2(random, width, hidden), weight_1(random.values(width, 0.5f, 1.5f)),
          bias_1(random.values(width, -0.2f, 0.2f)), weight_2(random.values(width, 0.5f, 1.5f)),
          bias_2(random.values(width, -0.2f, 0.2f)), ls_1(random.values(width, 0, 1)),
          ls_2(random.values(width, 0, 1)) {
        for (int i = 0; i < 4; i++) grids.push_back(random_grid(random, symmetric, 3));
    }

    clipq_block view() const {
        return {width, hidden, heads, activation, symmetric, 1e-5f, 1e-6f, weight_1.data(), bias_1.data(),
                weight_2.data(), bias_2.data(), qkv.view(grids[0]), out_proj.view(grids[1]), fc1.view(grids[2]), fc2.view(grids[3]),
                scaled ? ls_1.data() : nullptr, scaled ? ls_2.data() : nullptr};
    }

    Packed packed(int path) const {
        const clipq_block one = view();
        Packed all(clipq_block_size(path, &one));
        if (clipq_pack_block(path, &one, all.data())) std::abort();
        return all;
    }
};

struct Stack {
    int64_t width;
    bool causal;
    std::vector<Block> blocks;
    std::vector<int64_t> offsets;
    Values x;

    Stack(Random& random, int64_t heads, int64_t dim, int64_t batch, int64_t longest)
        : width(heads * dim), causal(random.chance(2)), offsets(random.offsets(batch, longest)),
          x(random.values(offsets.back() * width, -2, 2)) {
        for (int64_t count = random.from_to(1, 3); count > 0; count--) blocks.emplace_back(random, width, heads);
    }

    int64_t batch() const { return static_cast<int64_t>(offsets.size()) - 1; }
    int64_t rows() const { return offsets.back(); }

    // All rows, or those of `keep`; empty if the call fails.
    Values run(int path, int threads, const std::vector<int64_t>* keep = nullptr) const {
        std::vector<Packed> packed;
        for (const Block& block : blocks) packed.push_back(block.packed(path));
        std::vector<const uint8_t*> all;
        for (const Packed& one : packed) all.push_back(one.data());
        const int64_t nothing = 0, kept = keep ? static_cast<int64_t>(keep->size()) : 0;
        const int64_t* rows_kept = !keep ? nullptr : keep->empty() ? &nothing : keep->data();
        Values y(static_cast<size_t>((keep ? kept : rows()) * width), UNTOUCHED);
        const int status = clipq_run_blocks(threads, all.data(), static_cast<int64_t>(all.size()), x.data(),
                                            offsets.data(), batch(), causal, rows_kept, kept, y.data());
        return status ? Values() : y;
    }
};

}  // namespace
