// Threads are borrowed from the OpenMP runtime that torch has already loaded, through its entry point GOMP_parallel
// (GNU, LLVM and Intel runtimes export it on Linux), looked up at run time. Linking one ourselves could load a second
// runtime (torch's wheels bring their own, some under another name): its pool would compete with torch's workers, which
// keep spinning on the cores for a while after every torch operator. Sharing costs some 5 us a call, and needs nothing
// at build time. Each calling thread has its own team, so concurrent Python threads do not meet. The price is OpenMP's
// barrier: on a machine whose cores are taken by others, a call waits for the last worker, as torch's own do.
// Without a runtime, threads are started per call, and only for work that outlasts their start.
#include "parallel.h"

#include <dlfcn.h>

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace clipq {

namespace {

struct Job {
    std::atomic<int64_t> next;
    int64_t tasks;
    void (*body)(void*, int64_t);
    void* context;
};

// Tasks are handed out one by one: on a shared machine one thread may be much slower than another.
void work(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    for (int64_t task; (task = job.next.fetch_add(1, std::memory_order_relaxed)) < job.tasks;)
        job.body(job.context, task);
}

using Fork = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

Fork openmp_fork() {
    static const Fork fork = reinterpret_cast<Fork>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return fork;
}

void start_threads(int threads, Job& job) {
    std::vector<std::thread> team;
    try {
        team.reserve(static_cast<size_t>(threads - 1));
        while (static_cast<int>(team.size()) < threads - 1) team.emplace_back(work, &job);
    } catch (const std::exception&) {
        // No memory or no thread to be had: those that started, and the caller, do the work.
    }
    work(&job);
    for (std::thread& thread : team) thread.join();
}

}  // namespace

void parallel_run(int threads, int64_t tasks, bool lasting, void (*body)(void*, int64_t), void* context) {
    Job job = {{0}, tasks, body, context};
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads <= 1) return work(&job);
    if (const Fork fork = openmp_fork()) return fork(work, &job, static_cast<unsigned>(threads), 0);
    if (lasting) return start_threads(threads, job);
    work(&job);
}

}  // namespace clipq
