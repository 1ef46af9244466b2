// Attention over sequences, and stacks of packed transformer blocks.
#pragma once

#include "clipq.h"
#include "steps.h"

namespace clipq {

// The kernel of `path` if this build has it and the processor supports it, else null.
const Kernel* usable_kernel(int path);

// Sequences laid end to end: sequence i is the rows offsets[i] to offsets[i + 1].
struct Sequences {
    const int64_t* offsets;
    int64_t count;

    bool valid() const;
    int64_t first() const { return offsets[0]; }
    int64_t rows() const { return offsets[count] - offsets[0]; }
    int64_t longest() const;
};

// Queries [query, query + queries) of one sequence and its keys [key, key + keys); see Attention for `visible`.
struct Span {
    int64_t query, queries, key, keys, visible;
};

struct AttentionStep {
    const float* q;     // rows ldq apart
    const float* keys;  // all heads of a row side by side, its values right after them; rows ldkv apart
    int64_t ldq, ldkv;
    float* y;  // [queries, heads * dim]
    int64_t heads, dim;
    const Span* spans;
    int64_t count;
    int64_t integers_from;  // keys of a span that is multiplied in integers; shorter ones in floats
    float* scratch;          // scratch_each floats for every thread
    int64_t scratch_each;
};

// One span for each sequence. mask: enum clipq_mask.
void fill_spans(const Sequences& sequences, int mask, Span* spans);

// How many rows of a sequence of `rows` are attended to by any.
inline int64_t keys_of(int64_t rows, int mask) { return mask == CLIPQ_SEE_BUT_LAST ? at_least(rows - 1, 1) : rows; }

constexpr int64_t NO_INTEGERS = INT64_MAX;

// Floats of scratch memory for a thread, whatever the kind.
int64_t attention_scratch(const Kernel& kernel, int64_t keys, int64_t dim);

// Queries, keys and values that lie side by side: qkv is [rows, 3 * heads * dim], and so is q.
inline AttentionStep attention_of(const float* q, const float* qkv, float* y, int64_t heads, int64_t dim,
                                  const Span* spans, int64_t count, int64_t integers_from, float* scratch,
                                  int64_t scratch_each) {
    const int64_t width = heads * dim;
    return {q, qkv + width, 3 * width, 3 * width, y, heads, dim, spans, count, integers_from, scratch,
            scratch_each};
}

void attend(Team& team, const Kernel& kernel, const AttentionStep& step);

}  // namespace clipq
