// How the steps of a call are divided into tasks for a team of threads.
#pragma once

#include <memory>
#include <utility>

#include "kernel.h"
#include "parallel.h"

namespace clipq {

// Scratch memory of one call, 64-byte aligned; `ok` is false where there was none to be had.
class Scratch {
  public:
    explicit Scratch(int64_t bytes);
    bool ok() const { return memory_ != nullptr; }

    // The next `count` values of type T.
    template <class T>
    T* take(int64_t count) {
        T* part = reinterpret_cast<T*>(begin_ + used_);
        used_ += size_of<T>(count);
        return part;
    }

    // The same memory from byte `begin` on, to be taken anew.
    Scratch part(int64_t begin) const { return {memory_, begin_ + begin}; }

    template <class T>
    static int64_t size_of(int64_t count) {
        return round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    }

  private:
    Scratch(std::shared_ptr<void> memory, char* begin) : memory_(std::move(memory)), begin_(begin) {}

    std::shared_ptr<void> memory_;
    char* begin_;
    int64_t used_ = 0;
};

// Rows as they are, without a LayerNorm.
inline Source plain_rows(const float* x, int64_t ldx, int64_t k) { return {x, ldx, k, -1.0f, nullptr, nullptr}; }

int64_t rows_size(const Kernel& kernel, int64_t m, int64_t k);
Rows take_rows(Scratch& scratch, const Kernel& kernel, int64_t m, int64_t k);

// From 1 to as many threads as `products` multiplications keep busy and processors can run: those beyond would only be
// waited for.
int worth_threads(int threads, int64_t products);
bool is_lasting(int64_t products);

void quantize(Team& team, const Kernel& kernel, const Source& source, const Grid& grid, const Rows& out, int64_t m,
              bool as_int8 = false);

// Output channels [begin, end) at least; whole panels are computed.
void multiply(Team& team, const Kernel& kernel, const Linear& job, int64_t m, int64_t begin, int64_t end);

inline void multiply(Team& team, const Kernel& kernel, const Linear& job, int64_t m) {
    multiply(team, kernel, job, m, 0, job.n);
}

}  // namespace clipq
