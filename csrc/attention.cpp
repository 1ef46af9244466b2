#include "blocks.h"

namespace clipq {

bool Sequences::valid() const {
    if (count < 0 || offsets[0] != 0) return false;
    for (int64_t i = 0; i < count; i++)
        if (offsets[i + 1] <= offsets[i]) return false;
    return true;
}

int64_t Sequences::longest() const {
    int64_t most = 0;
    for (int64_t i = 0; i < count; i++) most = at_least(offsets[i + 1] - offsets[i], most);
    return most;
}

void fill_spans(const Sequences& sequences, int mask, Span* spans) {
    for (int64_t i = 0; i < sequences.count; i++) {
        const int64_t begin = sequences.offsets[i] - sequences.first();
        const int64_t rows = sequences.offsets[i + 1] - sequences.offsets[i];
        const int64_t keys = keys_of(rows, mask);
        spans[i] = {begin, rows, begin, keys, mask == CLIPQ_SEE_ALL ? keys : 1};
    }
}

int64_t attention_scratch(const Kernel& kernel, int64_t keys, int64_t dim) {
    return round_up(at_least(kernel.attention_scratch(keys, dim), kernel.integer_attention_scratch(keys, dim)), 16);
}

void attend(Team& team, const Kernel& kernel, const AttentionStep& step) {
    const int64_t width = step.heads * step.dim;
    float* scratch = step.scratch + team.seat() * step.scratch_each;
    team.each(step.count * step.heads, [&](int64_t task) {
        const Span& span = step.spans[task / step.heads];
        const int64_t head = task % step.heads * step.dim;
        const float* keys = step.keys + span.key * step.ldkv + head;
        const auto attend_head = span.keys >= step.integers_from ? kernel.attend_integers : kernel.attend;
        attend_head({step.q + span.query * step.ldq + head, keys, keys + width, step.ldq, step.ldkv,
                     step.y + span.query * width + head, width, span.queries, span.keys, step.dim, span.visible},
                    scratch);
    });
}

}  // namespace clipq
