// Threads are borrowed from the OpenMP runtime that torch has already loaded, through its entry point GOMP_parallel
// (GNU, LLVM and Intel runtimes export it on Linux), looked up at run time. Linking one ourselves could load a second
// runtime (torch's wheels bring their own, some under another name): its pool would compete with torch's workers, which
// keep spinning on the cores for a while after every torch operator. Sharing costs some 5 us a call, and needs nothing
// at build time. Each calling thread has its own team, so concurrent Python threads do not meet. The price is the
// barrier between steps: on a machine whose cores are taken by others, a call waits for the last worker, as torch's own
// do. Without a runtime, threads are started per call, and only for work that outlasts their start.
#include "parallel.h"

#include <dlfcn.h>
#include <sched.h>

#include <exception>
#include <thread>
#include <vector>

namespace clipq {

namespace {

constexpr int SPINS = 4000;  // some 50 us; then the core is left to whom the others may be waiting for

struct Job {
    Meeting meeting;
    std::atomic<int> size{0};  // 0: not known yet
    void (*body)(const void*, Team&);
    const void* context;
};

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Done>
void spin_until(const Done& done) {
    for (int spins = 0; !done(); spins++) {
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
}

using Fork = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
using Count = int (*)();

template <class Function>
Function looked_up(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

Fork openmp_fork() {
    static const Fork fork = looked_up<Fork>("GOMP_parallel");
    return fork;
}

Count openmp_count() {
    static const Count count = looked_up<Count>("omp_get_num_threads");
    return count;
}

void join(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    Team team(job.meeting, openmp_count()());
    job.body(job.context, team);
}

void join_started(Job* job) {
    spin_until([&] { return job->size.load(std::memory_order_acquire) != 0; });
    Team team(job->meeting, job->size.load(std::memory_order_relaxed));
    job->body(job->context, team);
}

void start_threads(int threads, Job& job) {
    std::vector<std::thread> others;
    try {
        others.reserve(static_cast<size_t>(threads - 1));
        while (static_cast<int>(others.size()) < threads - 1) others.emplace_back(join_started, &job);
    } catch (const std::exception&) {
        // No memory or no thread to be had: those that started, and the caller, do the work.
    }
    job.size.store(static_cast<int>(others.size()) + 1, std::memory_order_release);
    join_started(&job);
    for (std::thread& thread : others) thread.join();
}

}  // namespace

void Team::wait() {
    const unsigned generation = meeting_.generation.load(std::memory_order_relaxed);
    if (meeting_.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
        meeting_.arrived.store(0, std::memory_order_relaxed);
        meeting_.generation.store(generation + 1, std::memory_order_release);
    } else {
        spin_until([&] { return meeting_.generation.load(std::memory_order_acquire) != generation; });
    }
}

void run_team(int threads, bool lasting, void (*body)(const void*, Team&), const void* context) {
    Job job = {{}, {}, body, context};
    if (threads > 1 && openmp_fork() && openmp_count())
        return openmp_fork()(join, &job, static_cast<unsigned>(threads), 0);
    if (threads > 1 && lasting) return start_threads(threads, job);
    Team alone(job.meeting, 1);
    body(context, alone);
}

}  // namespace clipq
