// How the steps of a call are divided into tasks for a team of threads.
#pragma once

#include <memory>

#include "kernel.h"
#include "parallel.h"

namespace clipq {

// Scratch memory of one call, 64-byte aligned; `ok` is false where there was none to be had.
class Scratch {
  public:
    explicit Scratch(int64_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    bool ok() const { return memory_ != nullptr; }

    // The next `count` values of type T.
    template <class T>
    T* take(int64_t count) {
        T* part = reinterpret_cast<T*>(memory_ + used_);
        used_ += size_of<T>(count);
        return part;
    }

    template <class T>
    static int64_t size_of(int64_t count) {
        return round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    }

  private:
    char* memory_;
    int64_t used_ = 0;
};

int64_t rows_size(const Kernel& kernel, int64_t m, int64_t k);
Rows take_rows(Scratch& scratch, const Kernel& kernel, int64_t m, int64_t k);

// No more threads than `products` multiplications keep busy.
int worth_threads(int threads, int64_t products);
bool is_lasting(int64_t products);

void quantize(Team& team, const Kernel& kernel, const Source& source, bool symmetric, const Rows& out, int64_t m,
              bool as_int8 = false);

// Output channels [begin, end) at least; whole panels are computed.
void multiply(Team& team, const Kernel& kernel, const Linear& job, int64_t m, int64_t begin, int64_t end);

inline void multiply(Team& team, const Kernel& kernel, const Linear& job, int64_t m) {
    multiply(team, kernel, job, m, 0, job.n);
}

}  // namespace clipq
