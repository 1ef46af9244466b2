#include "clocks.h"

namespace clipq {

Clocks clocks;

namespace {

const Kernel* real;

int step_of(const Linear& job) {
    if (job.n == 3 * job.k) return QKV;
    return job.n == job.k ? OUT_PROJ : job.n > job.k ? FC1 : FC2;
}

void quantize_timed(const Source& source, const Grid& grid, const Rows& out, int64_t begin, int64_t end) {
    const int64_t start = now();
    real->quantize(source, grid, out, begin, end);
    const int step = source.eps >= 0 ? NORMALIZE : source.k == clocks.width ? QUANTIZE : QUANTIZE_HIDDEN;
    clocks.add(step, now() - start, (end - begin) * source.k);
}

void multiply_timed(const Linear& job, int64_t row, int64_t row_end, int64_t panel, int64_t panel_end) {
    const int64_t start = now();
    real->multiply(job, row, row_end, panel, panel_end);
    const int64_t columns = at_most(panel_end * real->panel_cols, job.n) - panel * real->panel_cols;
    clocks.add(step_of(job), now() - start, (row_end - row) * columns * job.k);
}

template <void (*Kernel::*ATTEND)(const Attention&, float*)>
void attend_timed(const Attention& job, float* scratch) {
    const int64_t start = now();
    (real->*ATTEND)(job, scratch);
    clocks.add(ATTENTION, now() - start, 2 * job.queries * job.keys * job.dim);
}

}  // namespace

const Kernel* usable_kernel(int path) {
    static Kernel timed;
    real = untimed_kernel(path);
    if (!real) return nullptr;
    timed = *real;
    timed.quantize = quantize_timed;
    timed.multiply = multiply_timed;
    timed.attend = attend_timed<&Kernel::attend>;
    timed.attend_integers = attend_timed<&Kernel::attend_integers>;
    return &timed;
}

}  // namespace clipq
