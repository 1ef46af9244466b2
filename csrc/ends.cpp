// What stands before and after the blocks of a tower: cut patches, joined tokens, norms, float projections, pooling.
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "blocks.h"

namespace clipq {

namespace {

constexpr int64_t TASK_ROWS = 16;
constexpr int64_t COPYING_COST = 8;  // one value's, in products

// Beyond any memory and any amount of work, and no small multiple of it leaves int64.
constexpr int64_t MOST = INT64_C(1) << 58;

// Whether none of the sizes is negative, and they multiply to no more than MOST.
bool fit(std::initializer_list<int64_t> sizes) {
    int64_t all = 1;
    for (const int64_t size : sizes) {
        if (size < 0 || size > CLIPQ_MAX_N) return false;
        if (size > 0 && all > MOST / size) return false;
        all *= at_least(size, 1);
    }
    return true;
}

void copy(float* to, const float* from, int64_t count) {
    memcpy(to, from, sizeof(float) * static_cast<size_t>(count));
}

// The LayerNorm of a row in float64, rounded once: the same number as anybody's who computes it so (see
// clipq/hosts/calls/norms.py). y may be x.
void normalize_row(const float* x, int64_t k, const float* weight, const float* bias, float eps, float* y) {
    constexpr int LANES = 8;
    double sums[LANES] = {}, squares[LANES] = {}, sum = 0, square = 0;
    const int64_t whole = k / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) sums[l] += x[i + l];
    for (int64_t i = whole; i < k; i++) sum += x[i];
    for (double part : sums) sum += part;
    const double mean = sum / static_cast<double>(k);
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) squares[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int64_t i = whole; i < k; i++) square += (x[i] - mean) * (x[i] - mean);
    for (double part : squares) square += part;
    const double inverse = 1.0 / std::sqrt(square / static_cast<double>(k) + static_cast<double>(eps));
    for (int64_t i = 0; i < k; i++)
        y[i] = static_cast<float>((x[i] - mean) * inverse * static_cast<double>(weight[i]) + static_cast<double>(bias[i]));
}

// body(begin, end) over all rows, a few at a time.
template <class Body>
void each_rows(int threads, int64_t rows, int64_t work, const Body& body) {
    with_team(worth_threads(threads, work), is_lasting(work), [&](Team& team) {
        team.each((rows + TASK_ROWS - 1) / TASK_ROWS, [&](int64_t task) {
            body(task * TASK_ROWS, at_most((task + 1) * TASK_ROWS, rows));
        });
    });
}

}  // namespace

}  // namespace clipq

using namespace clipq;

int clipq_cut_patches(int threads, const float* pixels, int64_t batch, int64_t channels, int64_t height, int64_t width,
                      int64_t down, int64_t across, float* rows) {
    if (!fit({batch, channels, height, width}) || channels < 1) return CLIPQ_BAD_SIZE;
    if (down < 1 || across < 1 || height < down || width < across) return CLIPQ_BAD_SIZE;
    const int64_t tall = height / down, wide = width / across, k = channels * down * across;
    const int64_t work = batch * tall * wide * k * COPYING_COST;
    with_team(worth_threads(threads, work), is_lasting(work), [&](Team& team) {
        team.each(batch * tall, [&](int64_t task) {  // a line of patches
            const float* picture = pixels + task / tall * channels * height * width;
            for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < down; i++) {
                    const float* line = picture + (c * height + task % tall * down + i) * width;
                    for (int64_t p = 0; p < wide; p++)
                        copy(rows + (task * wide + p) * k + (c * down + i) * across, line + p * across, across);
                }
        });
    });
    return CLIPQ_OK;
}

int clipq_join_tokens(int threads, const float* patch_rows, int64_t batch, int64_t patches, int64_t width,
                      const float* prefix, int64_t prefixes, const float* positions, const float* weight,
                      const float* bias, float eps, float* rows) {
    if (!fit({patches, prefixes}) || patches < 1 || width < 1 || !fit({batch, prefixes + patches, width}))
        return CLIPQ_BAD_SIZE;
    const int64_t tokens = prefixes + patches;
    each_rows(threads, batch * tokens, batch * tokens * width * COPYING_COST, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const int64_t token = row % tokens, patch = token - prefixes;
            float* to = rows + row * width;
            if (patch < 0) {
                copy(to, prefix + token * width, width);
                continue;
            }
            const float* from = patch_rows + (row / tokens * patches + patch) * width;
            const float* place = positions ? positions + patch * width : nullptr;
            for (int64_t i = 0; i < width; i++) to[i] = place ? from[i] + place[i] : from[i];
        }
        for (int64_t row = begin; row < end && eps >= 0; row++)
            normalize_row(rows + row * width, width, weight, bias, eps, rows + row * width);
    });
    return CLIPQ_OK;
}

int clipq_layer_norm(int threads, const float* x, int64_t ldx, int64_t m, int64_t k, const float* weight,
                     const float* bias, float eps, float* y) {
    if (!fit({m, k}) || k < 1 || (m > 1 && (ldx < k || !fit({m, ldx}))) || !(eps >= 0)) return CLIPQ_BAD_SIZE;
    each_rows(threads, m, m * k * COPYING_COST, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) normalize_row(x + row * ldx, k, weight, bias, eps, y + row * k);
    });
    return CLIPQ_OK;
}

int clipq_float_linear(int path, int threads, const float* x, int64_t m, int64_t k, const float* weight,
                       const float* bias, int64_t n, float* y) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!fit({m, n, k}) || n < 1 || k < 1 || n % WIDEST) return CLIPQ_BAD_SIZE;
    each_rows(threads, m, m * n * k, [&](int64_t begin, int64_t end) {
        kernel->product(x + begin * k, k, weight, n, k, y + begin * n, n, end - begin, n);
        for (int64_t row = begin; row < end && bias; row++)
            for (int64_t i = 0; i < n; i++) y[row * n + i] += bias[i];
    });
    return CLIPQ_OK;
}

int clipq_pool_attention(int path, int threads, const float* q, const float* kv, const int64_t* offsets, int64_t batch,
                         int64_t heads, int64_t dim, float* y) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    const Sequences sequences = {offsets, batch};
    if (heads < 1 || dim < 1 || !sequences.valid() || !fit({sequences.rows(), heads, dim})) return CLIPQ_BAD_SIZE;
    if (batch == 0) return CLIPQ_OK;
    const int64_t longest = sequences.longest(), products = 2 * sequences.rows() * heads * dim;
    threads = worth_threads(threads, products);
    const int64_t each = attention_scratch(*kernel, longest, dim);
    Scratch scratch(Scratch::size_of<Span>(batch) + Scratch::size_of<float>(each * threads));
    if (!scratch.ok()) return CLIPQ_OUT_OF_MEMORY;
    Span* spans = scratch.take<Span>(batch);
    for (int64_t i = 0; i < batch; i++) {
        const int64_t keys = offsets[i + 1] - offsets[i];
        spans[i] = {i, 1, offsets[i], keys, keys};
    }
    // The same query for every sequence: its rows lie 0 apart.
    const AttentionStep step = {q, kv, 0, 2 * heads * dim, y, heads, dim, spans, batch, NO_INTEGERS,
                                scratch.take<float>(each * threads), each};
    with_team(threads, is_lasting(products), [&](Team& team) { attend(team, *kernel, step); });
    return CLIPQ_OK;
}
