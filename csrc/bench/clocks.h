// Kernels that keep time: the library's own, with a clock around each call, so that the steps of a real call can be told
// apart. The bench links api.cpp with its `usable_kernel` under the name of `untimed_kernel`.
#pragma once

#include <array>
#include <atomic>
#include <chrono>

#include "../blocks.h"

namespace clipq {

const Kernel* untimed_kernel(int path);

// What the clocks keep apart. A tower's patches are cut and multiplied before its blocks, and the rest follows them.
enum Step { NORMALIZE, QUANTIZE, QUANTIZE_HIDDEN, QKV, OUT_PROJ, FC1, FC2, ATTENTION, STEPS };

struct Clocks {
    int64_t width = 0;  // of the tower
    std::array<std::atomic<int64_t>, STEPS> nanoseconds{}, work{};  // of all threads; products, or values

    void add(int step, int64_t time, int64_t amount) {
        nanoseconds[static_cast<size_t>(step)].fetch_add(time, std::memory_order_relaxed);
        work[static_cast<size_t>(step)].fetch_add(amount, std::memory_order_relaxed);
    }
    void reset() {
        for (auto& one : nanoseconds) one = 0;
        for (auto& one : work) one = 0;
    }
};

extern Clocks clocks;

inline int64_t now() {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace clipq
