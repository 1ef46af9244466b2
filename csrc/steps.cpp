#include "steps.h"

#include "system.h"

namespace clipq {

namespace {

constexpr int64_t TASK_VALUES = 8192;          // to quantize: a few microseconds
constexpr int64_t TASK_PRODUCTS = 1 << 18;     // some microseconds of work: at least that a task
constexpr int64_t THREAD_PRODUCTS = 1 << 20;   // at least that a thread
constexpr int64_t LASTING_PRODUCTS = 1 << 25;  // a millisecond on one core
constexpr int64_t BLOCK_BYTES = 192 * 1024;    // quantized rows that stay in a core's second-level cache
constexpr int TASKS_PER_THREAD = 12;

}  // namespace

Scratch::Scratch(int64_t bytes)
    : memory_(aligned_memory(static_cast<size_t>(bytes))), begin_(static_cast<char*>(memory_.get())) {}

int64_t rows_size(const Kernel& kernel, int64_t m, int64_t k) {
    return Scratch::size_of<char>(kernel.row_stride(k) * m) + Scratch::size_of<float>(m) +
           Scratch::size_of<int32_t>(m);
}

Rows take_rows(Scratch& scratch, const Kernel& kernel, int64_t m, int64_t k) {
    char* acts = scratch.take<char>(kernel.row_stride(k) * m);
    float* scale = scratch.take<float>(m);
    return {acts, scale, scratch.take<int32_t>(m)};
}

int worth_threads(int threads, int64_t products) {
    const int64_t most = at_most(threads, at_least(products / THREAD_PRODUCTS, 1));
    return most <= 1 ? 1 : static_cast<int>(at_most(most, processors()));
}

bool is_lasting(int64_t products) { return products >= LASTING_PRODUCTS; }

void quantize(Team& team, const Kernel& kernel, const Source& source, const Grid& grid, const Rows& out, int64_t m,
              bool as_int8) {
    const int64_t chunk = at_least(TASK_VALUES / source.k, 1);
    const auto rows = as_int8 ? kernel.quantize_int8 : kernel.quantize;
    team.each((m + chunk - 1) / chunk, [&](int64_t task) {
        rows(source, grid, out, task * chunk, at_most((task + 1) * chunk, m));
    });
}

// Tasks are blocks of rows (as many as stay in the cache) times groups of panels.
void multiply(Team& team, const Kernel& kernel, const Linear& job, int64_t m, int64_t begin, int64_t end) {
    const int64_t first = begin / kernel.panel_cols, panels = (end - 1) / kernel.panel_cols + 1 - first;
    const int64_t fitting = BLOCK_BYTES / kernel.row_stride(job.k) / kernel.tile_rows;
    const int64_t row_blocks = (m - 1) / (at_least(fitting, 1) * kernel.tile_rows) + 1;
    const int64_t rows = round_up((m - 1) / row_blocks + 1, kernel.tile_rows);
    const int64_t wanted = at_least(int64_t(team.size()) * TASKS_PER_THREAD / row_blocks, 1);
    const int64_t smallest = TASK_PRODUCTS / (rows * kernel.panel_cols * job.k) + 1;
    const int64_t group = at_least((panels - 1) / wanted + 1, smallest), groups = (panels - 1) / group + 1;
    Linear one = job;
    one.between = group * (team.size() - 1);
    team.each(row_blocks * groups, [&](int64_t task) {
        const int64_t row = task / groups * rows, panel = task % groups * group;
        const int64_t row_end = at_most(row + rows, m), panel_end = at_most(panel + group, panels);
        if (row < row_end) kernel.multiply(one, row, row_end, first + panel, first + panel_end);
    });
}

}  // namespace clipq
