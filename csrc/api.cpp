// The C ABI: checks, scratch memory, and how a linear is divided into tasks.
#include "clipq.h"

#include <cstdlib>
#include <memory>

#include "cpu.h"
#include "kernel.h"
#include "parallel.h"

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
        default: return nullptr;
    }
}

const Kernel* usable(int path) {
    const Kernel* kernel = built(path);
    return kernel && cpu_supports(path) ? kernel : nullptr;
}

bool sizes_fit(int64_t n, int64_t k) { return n >= 1 && k >= 1 && k <= CLIPQ_MAX_K; }

constexpr int64_t SERIAL_VALUES = 32768;       // quantizing fewer takes under 10 us: not worth a fork
constexpr int64_t TASK_PRODUCTS = 1 << 18;     // some microseconds of work: at least that a task
constexpr int64_t THREAD_PRODUCTS = 1 << 20;   // at least that a thread
constexpr int64_t LASTING_PRODUCTS = 1 << 25;  // a millisecond on one core
constexpr int64_t BLOCK_BYTES = 192 * 1024;    // quantized rows that stay in a core's second-level cache
constexpr int TASKS_PER_THREAD = 6;

void quantize_rows(int threads, int64_t m, int64_t k, void (*body)(void*, int64_t, int64_t), void* context) {
    const int64_t chunk = k >= SERIAL_VALUES / 4 ? 1 : SERIAL_VALUES / 4 / k;
    if (m * k < SERIAL_VALUES) return body(context, 0, m);
    parallel_for(threads, (m + chunk - 1) / chunk, m * k >= 64 * SERIAL_VALUES, [=](int64_t task) {
        const int64_t end = (task + 1) * chunk;
        body(context, task * chunk, end < m ? end : m);
    });
}

template <class Body>
void over_rows(int threads, int64_t m, int64_t k, Body body) {
    const auto call = [](void* b, int64_t begin, int64_t end) { (*static_cast<Body*>(b))(begin, end); };
    quantize_rows(threads, m, k, call, &body);
}

int64_t at_least(int64_t value, int64_t least) { return value < least ? least : value; }
int64_t at_most(int64_t value, int64_t most) { return value > most ? most : value; }

// Tasks are blocks of rows (as many as stay in the cache) times groups of panels.
void multiply(const Kernel& kernel, int threads, const Linear& job, int64_t m) {
    const int64_t products = m * job.n * job.k;
    if (threads > products / THREAD_PRODUCTS) threads = static_cast<int>(at_least(products / THREAD_PRODUCTS, 1));
    const int64_t fitting = BLOCK_BYTES / kernel.row_stride(job.k) / kernel.tile_rows;
    const int64_t row_blocks = (m - 1) / (at_least(fitting, 1) * kernel.tile_rows) + 1;
    const int64_t rows = round_up((m - 1) / row_blocks + 1, kernel.tile_rows);
    const int64_t panels = (job.n - 1) / kernel.panel_cols + 1;
    const int64_t wanted = at_least(int64_t(threads) * TASKS_PER_THREAD / row_blocks, 1);
    const int64_t smallest = TASK_PRODUCTS / (rows * kernel.panel_cols * job.k) + 1;
    const int64_t group = at_least((panels - 1) / wanted + 1, smallest);
    const int64_t groups = (panels - 1) / group + 1;
    parallel_for(threads, row_blocks * groups, products >= LASTING_PRODUCTS, [&](int64_t task) {
        const int64_t row = task / groups * rows, panel = task % groups * group;
        const int64_t row_end = at_most(row + rows, m), panel_end = at_most(panel + group, panels);
        if (row < row_end) kernel.multiply(job, row, row_end, panel, panel_end);
    });
}

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

}  // namespace clipq

using namespace clipq;

int clipq_abi_version(void) { return CLIPQ_ABI_VERSION; }

int clipq_supports(int path) { return usable(path) != nullptr; }

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
    const Kernel* kernel = usable(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(n, k)) return CLIPQ_BAD_SIZE;
    kernel->pack(weight, n, k, out);
    return CLIPQ_OK;
}

int clipq_quantize_rows(int path, int threads, const float* x, int64_t ldx, int64_t m, int64_t k, int symmetric,
                        int8_t* q, float* scale, int32_t* zero_point) {
    const Kernel* kernel = usable(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(1, k) || m < 0 || (m > 1 && ldx < k)) return CLIPQ_BAD_SIZE;
    const Rows out = {q, scale, zero_point};
    over_rows(threads, m, k, [&](int64_t begin, int64_t end) {
        kernel->quantize_int8(x, ldx, k, symmetric != 0, out, begin, end);
    });
    return CLIPQ_OK;
}

int clipq_linear(int path, int threads, const float* x, int64_t ldx, int64_t m, const uint8_t* packed,
                 const float* weight_scale, const float* bias, float* y, int64_t ldy, int64_t n, int64_t k,
                 int symmetric) {
    const Kernel* kernel = usable(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    if (!sizes_fit(n, k) || m < 0 || (m > 1 && (ldx < k || ldy < n))) return CLIPQ_BAD_SIZE;
    if (m == 0) return CLIPQ_OK;
    const int64_t acts = kernel->row_stride(k) * m, each = round_up(m * 4, 64);
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, static_cast<size_t>(acts + 2 * each))) return CLIPQ_OUT_OF_MEMORY;
    const std::unique_ptr<void, Free> owner(memory);
    char* scratch = static_cast<char*>(memory);
    const Rows rows = {scratch, reinterpret_cast<float*>(scratch + acts),
                       reinterpret_cast<int32_t*>(scratch + acts + each)};
    over_rows(threads, m, k, [&](int64_t begin, int64_t end) {
        kernel->quantize(x, ldx, k, symmetric != 0, rows, begin, end);
    });
    multiply(*kernel, threads, {rows, packed, weight_scale, bias, y, ldy, n, k}, m);
    return CLIPQ_OK;
}
