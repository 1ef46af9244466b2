// The C ABI: checks, scratch memory, and how a linear is divided into tasks.
#include "clipq.h"

#include "blocks.h"
#include "cpu.h"
#include "steps.h"

namespace clipq {

namespace {

// The build defines CLIPQ_HAVE_... for each instruction set its compiler could make.
const Kernel* built(int path) {
    switch (path) {
        case CLIPQ_PORTABLE: return &kernel_portable;
#ifdef CLIPQ_HAVE_AVX2
        case CLIPQ_AVX2: return &kernel_avx2;
#endif
#ifdef CLIPQ_HAVE_AVX_VNNI
        case CLIPQ_AVX_VNNI: return &kernel_avx_vnni;
#endif
#ifdef CLIPQ_HAVE_AVX512_VNNI
        case CLIPQ_AVX512_VNNI: return &kernel_avx512_vnni;
#endif
#ifdef CLIPQ_HAVE_NEON_DOTPROD
        case CLIPQ_NEON_DOTPROD: return &kernel_neon_dotprod;
#endif
        default: return nullptr;
    }
}

}  // namespace

const Kernel* usable_kernel(int path) {
    const Kernel* kernel = built(path);
    return kernel && cpu_supports(path) ? kernel : nullptr;
}

namespace {

constexpr int64_t QUANTIZING_COST = 32;  // one value's, in products

bool sizes_fit(int64_t n, int64_t k) { return n >= 1 && n <= CLIPQ_MAX_N && k >= 1 && k <= CLIPQ_MAX_K; }

}  // namespace

}  // namespace clipq

using namespace clipq;

int clipq_abi_version(void) { return CLIPQ_ABI_VERSION; }

int clipq_supports(int path) { return usable_kernel(path) != nullptr; }

int clipq_path(void) {
    int path = CLIPQ_PATHS - 1;  // the enum is in order of preference within an architecture
    while (path > CLIPQ_PORTABLE && !clipq_supports(path)) path--;
    return path;
}

size_t clipq_packed_size(int path, int64_t n, int64_t k) {
    const Kernel* kernel = built(path);
    return kernel && sizes_fit(n, k) ? kernel->packed_size(n, k) : 0;
}

int clipq_pack(int path, const int8_t* weight, int64_t n, int64_t k, uint8_t* out) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(n, k)) return CLIPQ_BAD_SIZE;
    kernel->pack(weight, n, k, out);
    return CLIPQ_OK;
}

namespace {

int quantize_int8(int path, int threads, const Source& source, int64_t m, const Grid& grid, const Rows& out) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(1, source.k) || m < 0 || (m > 1 && source.ldx < source.k) || !grid.valid()) return CLIPQ_BAD_SIZE;
    const int64_t work = m * source.k * QUANTIZING_COST;
    with_team(worth_threads(threads, work), is_lasting(work),
              [&](Team& team) { quantize(team, *kernel, source, grid, out, m, true); });
    return CLIPQ_OK;
}

}  // namespace

int clipq_quantize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k, int symmetric,
                        float input_scale, int32_t input_zero_point, int8_t* q, float* scale, int32_t* zero_point) {
    const Grid grid(symmetric != 0, input_scale, input_zero_point);
    return quantize_int8(path, threads, plain_rows(x, ldx, k), m, grid, {q, scale, zero_point});
}

int clipq_normalize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k, const float* weight,
                         const float* bias, float eps, int symmetric, float input_scale, int32_t input_zero_point,
                         int8_t* q, float* scale, int32_t* zero_point) {
    if (!(eps >= 0)) return CLIPQ_BAD_SIZE;
    const Grid grid(symmetric != 0, input_scale, input_zero_point);
    return quantize_int8(path, threads, {x, ldx, k, eps, weight, bias}, m, grid, {q, scale, zero_point});
}

int clipq_linear(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                 const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n, int64_t k,
                 int symmetric, float input_scale, int32_t input_zero_point) {
    return clipq_linear_step(path, threads, x, ldx, m, packed, weight_scale, bias, y, ldy, n, k, symmetric, input_scale,
                             input_zero_point, CLIPQ_NO_ACTIVATION, 0, nullptr);
}

int clipq_linear_step(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                      const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n, int64_t k,
                      int symmetric, float input_scale, int32_t input_zero_point, int activation, int residual,
                      const float* layer_scale) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(n, k) || m < 0 || (m > 1 && (ldx < k || ldy < n))) return CLIPQ_BAD_SIZE;
    if (activation < 0 || activation >= CLIPQ_ACTIVATIONS || (activation && residual)) return CLIPQ_BAD_SIZE;
    const Grid grid(symmetric != 0, input_scale, input_zero_point);
    if (!grid.valid()) return CLIPQ_BAD_SIZE;
    if (m == 0) return CLIPQ_OK;
    Scratch scratch(rows_size(*kernel, m, k));
    if (!scratch.ok()) return CLIPQ_OUT_OF_MEMORY;
    const Rows rows = take_rows(scratch, *kernel, m, k);
    const Linear job = {rows, packed, weight_scale, bias, y, ldy, n, k, activation, residual != 0, layer_scale};
    with_team(worth_threads(threads, m * n * k), is_lasting(m * n * k), [&](Team& team) {
        quantize(team, *kernel, plain_rows(x, ldx, k), grid, rows, m);
        multiply(team, *kernel, job, m);
    });
    return CLIPQ_OK;
}

int clipq_attention(int path, int threads, int kind, const float* qkv, const int64_t* offsets, int64_t batch,
                    int64_t heads, int64_t dim, int causal, float* y) {
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    const Sequences sequences = {offsets, batch};
    if (heads < 1 || dim < 1 || !sequences.valid() || kind < 0 || kind >= CLIPQ_ATTENTIONS) return CLIPQ_BAD_SIZE;
    if (batch == 0) return CLIPQ_OK;
    const int64_t longest = sequences.longest(), products = 2 * sequences.rows() * longest * heads * dim;
    threads = worth_threads(threads, products);
    const int64_t each = attention_scratch(*kernel, longest, dim);
    Scratch scratch(Scratch::size_of<Span>(batch) + Scratch::size_of<float>(each * threads));
    if (!scratch.ok()) return CLIPQ_OUT_OF_MEMORY;
    Span* spans = scratch.take<Span>(batch);
    fill_spans(sequences, causal ? CLIPQ_SEE_BEFORE : CLIPQ_SEE_ALL, spans);
    const int64_t integers_from = kind == CLIPQ_INT8_ATTENTION ? 0 : NO_INTEGERS;
    const AttentionStep step = attention_of(qkv, qkv, y, heads, dim, spans, batch, integers_from,
                                            scratch.take<float>(each * threads), each);
    with_team(threads, is_lasting(products), [&](Team& team) { attend(team, *kernel, step); });
    return CLIPQ_OK;
}

int clipq_gather_rows(int path, int threads, const int8_t* table, const float* scale, int64_t rows, int64_t k,
                      const int64_t* ids, int64_t count, float* y) {
    if (!usable_kernel(path)) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(1, k) || count < 0) return CLIPQ_BAD_SIZE;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= rows) return CLIPQ_BAD_SIZE;
    with_team(worth_threads(threads, count * k), is_lasting(count * k), [&](Team& team) {
        team.each(count, [&](int64_t i) {
            for (int64_t j = 0; j < k; j++) y[i * k + j] = static_cast<float>(table[ids[i] * k + j]) * scale[ids[i]];
        });
    });
    return CLIPQ_OK;
}
