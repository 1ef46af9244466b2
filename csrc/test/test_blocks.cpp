// clipq_run_blocks against the same steps one by one, on every path of this processor: equal bits.
#include <cstring>

#include "../stack.h"
#include "stacks.h"

namespace {

// act(norm(x) @ weight.T + bias), from the kernel's table: the C ABI offers no norm into a linear. With `onto`, that is
// added to it as `layer_scale` says.
Values normalized_linear(int path, const Values& x, int64_t ldx, const Matrix& matrix, const clipq_norm& norm,
                         const Grid& grid, int activation, const Values* onto = nullptr,
                         const float* layer_scale = nullptr) {
    const Kernel& kernel = *usable_kernel(path);
    const int64_t k = matrix.k, m = static_cast<int64_t>(x.size()) / ldx;
    const Values nothing(static_cast<size_t>(k));
    const Packed packed = matrix.packed(path), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    Values scale(static_cast<size_t>(m)), y = onto ? *onto : Values(static_cast<size_t>(m * matrix.n));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.quantize({x.data(), ldx, k, norm.weight ? norm.eps : -1.0f, norm.weight, norm.bias ? norm.bias : nothing.data(),
                     norm.kind == CLIPQ_LAYER_NORM}, grid, rows, 0, m);
    kernel.multiply({rows, packed.data(), matrix.scale.data(), matrix.bias.data(), y.data(), matrix.n, matrix.n, k,
                     activation, onto != nullptr, layer_scale}, 0, m, 0, (matrix.n - 1) / kernel.panel_cols + 1);
    return y;
}

// The norms by the kernel's own step (test_steps.cpp tests it), the turning by plain arithmetic.
void turn_heads(int path, const Stack& stack, const Block& b, Values& qkv) {
    const int64_t d = b.width, dim = d / b.heads;
    for (size_t s = 0; s + 1 < stack.offsets.size(); s++)
        for (int64_t row = stack.offsets[s]; row < stack.offsets[s + 1]; row++)
            for (int64_t part = 0; part < 2; part++) {
                const clipq_norm norm = (part ? b.k_norm : b.q_norm).view();
                float* x = qkv.data() + row * 3 * d + part * d;
                const int64_t at = row - stack.offsets[s] - stack.prefix;
                if (norm.weight)
                    usable_kernel(path)->turn({x, b.heads, dim, norm.weight, norm.bias, norm.eps,
                                               norm.kind == CLIPQ_LAYER_NORM, nullptr, nullptr, 0});
                for (int64_t h = 0; h < b.heads && at >= 0 && b.rotation; h++)
                    turn_plainly(x + h * dim, dim, stack.cos.data() + at * dim, stack.sin.data() + at * dim, b.rotation);
            }
}

void attend_floats(int path, const Stack& stack, const Block& b, const Values& qkv, Values& mixed) {
    const int64_t dim = b.width / b.heads;
    if (stack.mask != CLIPQ_SEE_BUT_LAST) {
        clipq_attention(path, 1, CLIPQ_FLOAT_ATTENTION, qkv.data(), stack.offsets.data(), stack.batch(), b.heads, dim,
                        stack.mask, mixed.data());
        return;
    }
    // The last row's own key is taken away: as the last query of a sequence whose last key repeats nothing.
    const Kernel& kernel = *usable_kernel(path);
    for (size_t s = 0; s + 1 < stack.offsets.size(); s++) {
        const int64_t begin = stack.offsets[s], rows = stack.offsets[s + 1] - begin, keys = rows > 1 ? rows - 1 : 1;
        Values scratch(static_cast<size_t>(kernel.attention_scratch(keys, dim)));
        for (int64_t row = 0; row < rows; row++)
            for (int64_t head = 0; head < b.width; head += dim) {
                const float *q = qkv.data() + (begin + row) * 3 * b.width + head, *k = qkv.data() + begin * 3 * b.width + b.width + head;
                kernel.attend({q, k, k + b.width, 3 * b.width, 3 * b.width, mixed.data() + (begin + row) * b.width + head,
                               b.width, 1, at_most(row + 1, keys), dim, at_most(row + 1, keys)}, scratch.data());
            }
    }
}

// In integers where a sequence has keys enough and the block says so.
void attend(int path, const Stack& stack, const Block& b, const Values& qkv, Values& mixed) {
    const int64_t d = b.width, dim = d / b.heads;
    attend_floats(path, stack, b, qkv, mixed);
    if (b.attention != CLIPQ_INT8_ATTENTION || !usable_kernel(path)->integers_pay) return;
    for (size_t s = 0; s + 1 < stack.offsets.size(); s++) {
        const int64_t begin = stack.offsets[s], rows = stack.offsets[s + 1] - begin;
        const int64_t keys = stack.mask == CLIPQ_SEE_BUT_LAST && rows > 1 ? rows - 1 : rows;
        const Kernel& kernel = *usable_kernel(path);
        Values scratch(static_cast<size_t>(kernel.integer_attention_scratch(keys, dim)));
        for (int64_t head = 0; head < d && keys >= CLIPQ_INT8_KEYS; head += dim) {
            const float* q = qkv.data() + begin * 3 * d + head;
            kernel.attend_integers({q, q + d, q + 2 * d, 3 * d, 3 * d, mixed.data() + begin * d + head, d, rows, keys,
                                    dim, stack.mask == CLIPQ_SEE_ALL ? keys : 1}, scratch.data());
        }
    }
}

Values step_by_step(int path, const Stack& stack) {
    Values x = stack.x, mixed(stack.x.size());
    for (const Block& b : stack.blocks) {
        const clipq_block view = b.view();
        Values qkv = normalized_linear(path, x, b.width, b.qkv, view.ln_1, b.grids[0], CLIPQ_NO_ACTIVATION);
        turn_heads(path, stack, b, qkv);
        attend(path, stack, b, qkv, mixed);
        x = normalized_linear(path, mixed, b.width, b.out_proj, view.attn_norm, b.grids[1], CLIPQ_NO_ACTIVATION, &x, view.ls_1);
        Values inner = normalized_linear(path, x, b.width, b.fc1, view.ln_2, b.grids[2],
                                         b.gated ? CLIPQ_NO_ACTIVATION : b.activation);
        for (int64_t row = 0; row < stack.rows() && b.gated; row++)
            usable_kernel(path)->gate(inner.data() + row * 2 * b.hidden, b.hidden, b.activation);
        x = normalized_linear(path, inner, b.gated ? 2 * b.hidden : b.hidden, b.fc2, view.mlp_norm, b.grids[3],
                              CLIPQ_NO_ACTIVATION, &x, view.ls_2);
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
    const Call call = {&block, 1, nullptr, {offsets.data(), batch}, CLIPQ_SEE_ALL, keep.data(),
                       static_cast<int64_t>(keep.size()), nullptr, y.data(), usable_kernel(path)};
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
    return {random, heads, dim, random.from_to(1, 4), random.chance(16) ? 160 : 12};
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
