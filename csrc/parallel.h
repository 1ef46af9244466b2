#pragma once

#include <cstdint>

namespace clipq {

// Calls body(context, task) for every task in [0, tasks), on up to `threads` threads with the caller as one of them.
// `lasting` says that the work takes a millisecond or more, so that starting a thread for it pays.
void parallel_run(int threads, int64_t tasks, bool lasting, void (*body)(void*, int64_t), void* context);

template <class Body>
void parallel_for(int threads, int64_t tasks, bool lasting, Body body) {
    parallel_run(threads, tasks, lasting, [](void* context, int64_t task) { (*static_cast<Body*>(context))(task); },
                 &body);
}

}  // namespace clipq
