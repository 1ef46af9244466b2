// clipq_run_blocks against the same steps one by one, on every path of this processor: equal bits.
#include <cstring>

#include "../stack.h"
#include "stacks.h"

namespace {

// act(LayerNorm(x) @ weight.T + bias), from the kernel's table: the C ABI offers no LayerNorm into a linear.
Values normalized_linear(int path, const Values& x, const Matrix& matrix, const float* weight, const float* bias,
                         float eps, const Grid& grid, int activation) {
    const Kernel& kernel = *usable_kernel(path);
    const int64_t k = matrix.k, m = static_cast<int64_t>(x.size()) / k;
    const Packed packed = matrix.packed(path), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    Values scale(static_cast<size_t>(m)), y(static_cast<size_t>(m * matrix.n));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.quantize({x.data(), k, k, eps, weight, bias}, grid, rows, 0, m);
    kernel.multiply({rows, packed.data(), matrix.scale.data(), matrix.bias.data(), y.data(), matrix.n, matrix.n, k,
                     activation, false, nullptr}, 0, m, 0, (matrix.n - 1) / kernel.panel_cols + 1);
    return y;
}

void add_linear(int path, const Values& x, const Matrix& matrix, const Grid& grid, const float* layer_scale, Values& y) {
    const int64_t m = static_cast<int64_t>(x.size()) / matrix.k;
    const Packed packed = matrix.packed(path);
    clipq_linear_step(path, 1, x.data(), matrix.k, m, packed.data(), matrix.scale.data(), matrix.bias.data(), y.data(),
                      matrix.n, matrix.n, matrix.k, grid.symmetric, grid.scale, grid.zero_point, CLIPQ_NO_ACTIVATION, 1, layer_scale);
}

Values step_by_step(int path, const Stack& stack) {
    Values x = stack.x, mixed(stack.x.size());
    for (const Block& b : stack.blocks) {
        const clipq_block view = b.view();
        const Values qkv = normalized_linear(path, x, b.qkv, view.ln_1_weight, view.ln_1_bias, view.eps_1, b.grids[0],
                                             CLIPQ_NO_ACTIVATION);
        clipq_attention(path, 1, qkv.data(), stack.offsets.data(), stack.batch(), b.heads, b.width / b.heads,
                        stack.causal, mixed.data());
        add_linear(path, mixed, b.out_proj, b.grids[1], view.ls_1, x);
        const Values inner = normalized_linear(path, x, b.fc1, view.ln_2_weight, view.ln_2_bias, view.eps_2,
                                               b.grids[2], b.activation);
        add_linear(path, inner, b.fc2, b.grids[3], view.ls_2, x);
    }
    return x;
}

// No row, some, or one of each sequence.
std::vector<int64_t> rows_to_keep(Random& random, const Stack& stack) {
    std::vector<int64_t> keep;
    const int64_t kind = random.from_to(0, 4);
    for (size_t i = 0; i + 1 < stack.offsets.size() && kind > 1; i++)
        keep.push_back(random.from_to(stack.offsets[i], stack.offsets[i + 1] - 1));
    for (int64_t row = 0; row < stack.rows() && kind == 1; row++)
        if (random.chance(3)) keep.push_back(row);
    return std::vector<int64_t>(keep);  // of that size exactly
}

bool kept_rows_are_right(int path, const Stack& stack, const Values& full, const std::vector<int64_t>& keep) {
    const Values kept = stack.run(path, 1, &keep);
    Values right;
    for (const int64_t row : keep)
        right.insert(right.end(), full.begin() + row * stack.width, full.begin() + (row + 1) * stack.width);
    return same(kept, right);
}

// A NaN or an infinity in one sequence changes no other.
bool poison_stays(int path, Random& random, Stack stack, const Values& full) {
    const size_t s = static_cast<size_t>(random.from_to(0, stack.batch() - 1));
    const int64_t begin = stack.offsets[s] * stack.width, end = stack.offsets[s + 1] * stack.width;
    stack.x[static_cast<size_t>(random.from_to(begin, end - 1))] = random.chance(2) ? NAN : -INFINITY;
    const Values poisoned = stack.run(path, 1);
    bool any = false;
    for (int64_t i = 0; i < static_cast<int64_t>(full.size()); i++) {
        const size_t at = static_cast<size_t>(i);
        any |= std::isnan(poisoned[at]);
        if ((i < begin || i >= end) && poisoned[at] != full[at]) return false;
    }
    return any;
}

// However many sequences a call has, what goes through the blocks together is one of them or a few short ones: the
// memory between the steps follows from that. And every sequence is in one group, in order, with its kept rows.
bool plan_is_bounded(int path, Random& random) {
    const Stack stack(random, 1, 1, 1, 1);
    const Packed packed = stack.blocks[0].packed(path);
    const uint8_t* block = packed.data();
    const int64_t batch = random.from_to(1, 300), longest = random.from_to(1, 1100);
    const std::vector<int64_t> offsets = random.offsets(batch, longest);
    std::vector<int64_t> keep;
    for (int64_t i = 0; i < batch; i++)
        if (random.chance(2)) keep.push_back(offsets[static_cast<size_t>(i)]);
    keep.reserve(1);
    std::vector<float> y(static_cast<size_t>(offsets.back()));
    const Call call = {&block, 1, nullptr, {offsets.data(), batch}, false, keep.data(),
                       static_cast<int64_t>(keep.size()), y.data(), usable_kernel(path)};
    const Plan found = plan(call, static_cast<int>(random.from_to(1, 9)));
    int64_t sequences = 0, kept = 0;
    for (const auto* groups : {&found.alone, &found.shared})
        for (const Group& group : *groups) {
            if (group.sequences.rows() > at_least(longest, groups == &found.alone ? 200 : 800)) return false;
            if (group.sequences.offsets != offsets.data() + sequences || group.keep != keep.data() + kept) return false;
            if (group.y != y.data() + kept * call.block(0).width) return false;
            sequences += group.sequences.count;
            kept += group.kept;
        }
    return sequences == batch && kept == static_cast<int64_t>(keep.size());
}

Stack make_stack(Random& random) {
    const int64_t heads = random.from_to(1, 3), dim = random.size(24);
    // Now and then more rows than go through the stack at a time.
    if (random.chance(64)) return {random, 1, random.size(8), random.from_to(6, 12), 300};
    return {random, heads, dim, random.from_to(1, 4), random.chance(16) ? 100 : 12};
}

}  // namespace

int main(int argc, char** argv) {
    const Seeds seeds(argc, argv);
    Report report;
    seeds.each(report, [&](Random& random) {
        const Stack stack = make_stack(random);
        const std::vector<int64_t> keep = rows_to_keep(random, stack);
        for (const int path : supported_paths()) {
            const Values full = stack.run(path, 1);
            report.check(same(full, step_by_step(path, stack)), "a stack of blocks", path);
            report.check(kept_rows_are_right(path, stack, full, keep), "kept rows", path);
            report.check(poison_stays(path, random, stack, full), "a poisoned sequence", path);
            report.check(plan_is_bounded(path, random), "a plan", path);
        }
    });
    for (const int path : supported_paths())
        std::printf("stacks on path %d: %lld cases\n", path, static_cast<long long>(seeds.cases));
    return report.status();
}
