// Stacks of transformer blocks over packed weights. A few sequences at a time go through all blocks, so that what lies
// between the steps stays in the cache.
#include "stack.h"

#include <cstring>
#include <new>

namespace clipq {

namespace {

// Memory that a group needs between the steps.
struct Buffers {
    Rows rows, kept_rows;
    float *hidden, *wide, *mixed, *q;  // [rows, width], [rows, max(3 width, inner)], [rows, width], [kept, 3 width]
    Span* spans;
    int64_t* places;  // [rows], of each in its sequence
    float* attention;
    int64_t attention_each;

    static int64_t wide_size(const Extent& e) { return at_least(3 * e.width, e.inner); }
    static int64_t most_inputs(const Extent& e) { return at_least(e.width, e.hidden); }

    static int64_t size(const Kernel& kernel, const Extent& e, int threads) {
        return rows_size(kernel, e.rows, most_inputs(e)) + rows_size(kernel, e.kept, e.width) +
               2 * Scratch::size_of<float>(e.rows * e.width) + Scratch::size_of<float>(e.rows * wide_size(e)) +
               Scratch::size_of<float>(e.kept * 3 * e.width) + Scratch::size_of<Span>(at_least(e.sequences, e.kept)) +
               Scratch::size_of<int64_t>(e.rows) +
               Scratch::size_of<float>(threads * attention_scratch(kernel, e.longest, e.dim));
    }

    Buffers(Scratch& scratch, const Kernel& kernel, const Extent& e, int threads)
        : rows(take_rows(scratch, kernel, e.rows, most_inputs(e))),
          kept_rows(take_rows(scratch, kernel, e.kept, e.width)),
          hidden(scratch.take<float>(e.rows * e.width)),
          wide(scratch.take<float>(e.rows * wide_size(e))),
          mixed(scratch.take<float>(e.rows * e.width)),
          q(scratch.take<float>(e.kept * 3 * e.width)),
          spans(scratch.take<Span>(at_least(e.sequences, e.kept))),
          places(scratch.take<int64_t>(e.rows)),
          attention(scratch.take<float>(threads * attention_scratch(kernel, e.longest, e.dim))),
          attention_each(attention_scratch(kernel, e.longest, e.dim)) {}
};

// One group going through the blocks.
class Run {
  public:
    Run(const Call& call, const Group& group, const Buffers& buffers)
        : call_(call), group_(group), kernel_(*call.kernel), b_(buffers), rows_(group.sequences.rows()),
          y_(group.y), x_(call.keep ? buffers.hidden : group.y) {}

    void all(Team& team) {
        const int64_t width = call_.block(0).width, first = group_.sequences.first();
        each_row(team, rows_, [&](int64_t i) { copy_row(x_ + i * width, call_.x + (first + i) * width, width); });
        if (call_.rotary) find_places(team);
        for (int64_t i = 0; i < call_.count; i++) {
            const bool keeps = call_.keep && i == call_.count - 1;
            if (keeps && group_.kept == 0) return;
            block(team, call_.block(i), keeps);
        }
    }

  private:
    template <class Body>
    static void each_row(Team& team, int64_t rows, const Body& body) {
        constexpr int64_t chunk = 16;
        team.each((rows + chunk - 1) / chunk, [&](int64_t task) {
            for (int64_t i = task * chunk; i < at_most((task + 1) * chunk, rows); i++) body(i);
        });
    }

    static void copy_row(float* to, const float* from, int64_t width) {
        memcpy(to, from, sizeof(float) * static_cast<size_t>(width));
    }

    void block(Team& team, const PackedBlock& block, bool keeps) {
        const int64_t d = block.width, rows = keeps ? group_.kept : rows_;
        float* x = keeps ? y_ : x_;
        quantize(team, kernel_, normalized(block, block.ln_1, x_, d, d), grid_of(block, block.qkv), b_.rows, rows_);
        multiply(team, kernel_, job(block, block.qkv, b_.rows, b_.wide), rows_, keeps ? d : 0, 3 * d);
        if (keeps) {
            each_row(team, rows, [&](int64_t i) { copy_row(x + i * d, x_ + kept_row(i) * d, d); });
            quantize(team, kernel_, normalized(block, block.ln_1, x, d, d), grid_of(block, block.qkv), b_.kept_rows,
                     rows);
            multiply(team, kernel_, job(block, block.qkv, b_.kept_rows, b_.q), rows, 0, d);
        }
        if (block.turns()) turn(team, block, keeps);
        attention(team, block, keeps);
        quantize(team, kernel_, normalized(block, block.attn_norm, b_.mixed, d, d), grid_of(block, block.out_proj), b_.rows,
                 rows);
        multiply(team, kernel_, residual(block, block.out_proj, x, block.ls_1), rows);
        mlp(team, block, x, rows);
    }

    void find_places(Team& team) {
        const Sequences& all = group_.sequences;
        team.each(all.count, [&](int64_t s) {
            for (int64_t row = all.offsets[s]; row < all.offsets[s + 1]; row++)
                b_.places[row - all.first()] = row - all.offsets[s];
        });
    }

    // Queries and keys by their norms and their places.
    void turn(Team& team, const PackedBlock& block, bool keeps) {
        const int64_t d = block.width;
        each_row(team, rows_, [&](int64_t i) {
            if (!keeps) turn_row(block, block.q_norm, b_.wide + i * 3 * d, i);
            turn_row(block, block.k_norm, b_.wide + i * 3 * d + d, i);
        });
        if (keeps)
            each_row(team, group_.kept,
                     [&](int64_t i) { turn_row(block, block.q_norm, b_.q + i * 3 * d, kept_row(i)); });
    }

    void turn_row(const PackedBlock& block, const PackedNorm& norm, float* x, int64_t row) const {
        Heads job = {x, block.heads, block.dim(), floats(block, norm.weight), floats(block, norm.bias), norm.eps,
                     norm.kind == CLIPQ_LAYER_NORM, nullptr, nullptr, block.rotation};
        const clipq_rotary* rotary = call_.rotary;
        if (rotary && block.rotation != CLIPQ_NO_ROTATION && b_.places[row] >= rotary->prefix) {
            const int64_t at = (b_.places[row] - rotary->prefix) * rotary->dim;
            job.cos = rotary->cos + at;
            job.sin = rotary->sin + at;
        }
        if (job.weight || job.cos) kernel_.turn(job);
    }

    void attention(Team& team, const PackedBlock& block, bool keeps) {
        team.each(1, [&](int64_t) {
            if (keeps)
                kept_spans();
            else
                fill_spans(group_.sequences, call_.mask, b_.spans);
        });
        attend(team, kernel_, attention_of(keeps ? b_.q : b_.wide, b_.wide, b_.mixed, block.heads,
                                           block.width / block.heads, b_.spans,
                                           keeps ? group_.kept : group_.sequences.count, integers_from(block),
                                           b_.attention, b_.attention_each));
    }

    int64_t integers_from(const PackedBlock& block) const {
        return block.attention == CLIPQ_INT8_ATTENTION && kernel_.integers_pay ? CLIPQ_INT8_KEYS : NO_INTEGERS;
    }

    void mlp(Team& team, const PackedBlock& block, float* x, int64_t rows) {
        const int64_t d = block.width, h = block.hidden, inner_width = block.fc1.n;
        quantize(team, kernel_, normalized(block, block.ln_2, x, d, d), grid_of(block, block.fc1), b_.rows, rows);
        Linear inner = job(block, block.fc1, b_.rows, b_.wide);
        if (!block.gated) inner.activation = block.activation;
        multiply(team, kernel_, inner, rows);
        if (block.gated)
            each_row(team, rows, [&](int64_t i) { kernel_.gate(b_.wide + i * inner_width, h, block.activation); });
        quantize(team, kernel_, normalized(block, block.mlp_norm, b_.wide, inner_width, h), grid_of(block, block.fc2), b_.rows,
                 rows);
        multiply(team, kernel_, residual(block, block.fc2, x, block.ls_2), rows);
    }

    int64_t kept_row(int64_t i) const { return group_.keep[i] - group_.sequences.first(); }

    void kept_spans() {
        const Sequences& all = group_.sequences;
        for (int64_t i = 0, s = 0; i < group_.kept; i++) {
            while (group_.keep[i] >= all.offsets[s + 1]) s++;
            const int64_t begin = all.offsets[s] - all.first();
            const int64_t keys = keys_of(all.offsets[s + 1] - all.offsets[s], call_.mask);
            const int64_t seen = call_.mask == CLIPQ_SEE_ALL ? keys : at_most(kept_row(i) - begin + 1, keys);
            b_.spans[i] = {i, 1, begin, keys, seen};
        }
    }

    static Linear job(const PackedBlock& block, const PackedMatrix& matrix, const Rows& rows, float* y) {
        return {rows, reinterpret_cast<const uint8_t*>(&block) + matrix.packed, floats(block, matrix.scale),
                floats(block, matrix.bias), y, matrix.n, matrix.n, matrix.k, CLIPQ_NO_ACTIVATION, false, nullptr};
    }

    Linear residual(const PackedBlock& block, const PackedMatrix& matrix, float* x, int64_t layer_scale) const {
        Linear one = job(block, matrix, b_.rows, x);
        one.accumulate = true;
        one.layer_scale = floats(block, layer_scale);
        return one;
    }

    const Call& call_;
    const Group& group_;
    const Kernel& kernel_;
    const Buffers& b_;
    const int64_t rows_;
    float *y_, *x_;
};

bool kept_rows_valid(const int64_t* keep, int64_t kept, int64_t rows) {
    for (int64_t i = 0; i < kept; i++)
        if (keep[i] < 0 || keep[i] >= rows || (i > 0 && keep[i] <= keep[i - 1])) return false;
    return kept >= 0;
}

// Whether the tables, if there are any, are for the heads of every block that turns them, and for all places.
bool can_turn(const Call& call) {
    const clipq_rotary* rotary = call.rotary;
    if (!rotary) return true;  // nothing is turned
    for (int64_t i = 0; i < call.count; i++)
        if (call.block(i).rotation != CLIPQ_NO_ROTATION && rotary->dim != call.block(i).dim()) return false;
    return rotary->cos && rotary->sin && rotary->prefix >= 0 && rotary->tokens >= 0 &&
           call.sequences.longest() - rotary->prefix <= rotary->tokens;
}

int run(const Call& call, int most_threads) {
    const int64_t products = call.products();
    const int threads = worth_threads(most_threads, products);
    const Plan planned = plan(call, threads);
    const Extent alone = extent_of(call, planned.alone), shared = extent_of(call, planned.shared);
    const int64_t alone_size = planned.alone.empty() ? 0 : Buffers::size(*call.kernel, alone, 1);
    const int64_t shared_size = planned.shared.empty() ? 0 : Buffers::size(*call.kernel, shared, threads);
    Scratch scratch(at_least(threads * alone_size, shared_size));  // the one, then the other
    if (!scratch.ok()) return CLIPQ_OUT_OF_MEMORY;
    with_team(threads, is_lasting(products), [&](Team& team) {
        Scratch own = scratch.part(team.seat() * alone_size);
        const Buffers mine(own, *call.kernel, alone, 1);
        team.each(static_cast<int64_t>(planned.alone.size()), [&](int64_t i) {
            Meeting none;
            Team one(none, 1);
            Run(call, planned.alone[static_cast<size_t>(i)], mine).all(one);
        });
        Scratch all = scratch.part(0);
        const Buffers ours(all, *call.kernel, shared, threads);
        for (const Group& group : planned.shared) Run(call, group, ours).all(team);
    });
    return CLIPQ_OK;
}

}  // namespace

}  // namespace clipq

using namespace clipq;

int clipq_run_blocks(int threads, const uint8_t* const* blocks, int64_t count, const float* x, const int64_t* offsets,
                     int64_t batch, int mask, const int64_t* keep, int64_t kept, const clipq_rotary* rotary, float* y) {
    Call call = {blocks, count, x, {offsets, batch}, mask, keep, keep ? kept : 0, rotary, y, nullptr};
    if (count < 1 || !call.sequences.valid() || mask < 0 || mask >= CLIPQ_MASKS) return CLIPQ_BAD_SIZE;
    for (int64_t i = 0; i < count; i++)
        if (call.block(i).magic != MAGIC || call.block(i).width != call.block(0).width ||
            call.block(i).path != call.block(0).path)
            return CLIPQ_BAD_BLOCK;
    if (!(call.kernel = usable_kernel(call.block(0).path))) return CLIPQ_UNSUPPORTED_PATH;
    if (batch == 0) return CLIPQ_OK;
    if (!can_turn(call)) return CLIPQ_BAD_SIZE;
    if (keep && !kept_rows_valid(keep, kept, call.sequences.rows())) return CLIPQ_BAD_SIZE;
    try {
        return run(call, threads);
    } catch (const std::bad_alloc&) {
        return CLIPQ_OUT_OF_MEMORY;
    }
}
