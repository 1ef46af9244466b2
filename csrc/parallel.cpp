// Threads are borrowed from the OpenMP runtime that torch has already loaded, through its entry point GOMP_parallel
// (GNU, LLVM and Intel runtimes export it on Linux), looked up at run time. Linking one ourselves could load a second
// runtime (torch's wheels bring their own, some under another name): its pool would compete with torch's workers, which
// keep spinning on the cores for a while after every torch operator. Sharing costs some 5 us a call, and needs nothing
// at build time. Each calling thread has its own team, so concurrent Python threads do not meet. The price is its
// barrier at the end: on a machine whose cores are taken by others, a call waits once for the last worker to come.
// Where no runtime is found (the runtime without torch, and Windows), a crew of our own takes its place, and is called
// only for work that outlasts its waking.
#include "parallel.h"

#include <climits>

#include "crew.h"
#include "spin.h"
#include "system.h"

namespace clipq {

namespace {

struct Job {
    Meeting meeting;
    int size;  // of the team; OpenMP says so itself
    void (*body)(const void*, Team&);
    const void* context;
};

using Fork = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
using Count = int (*)();

struct OpenMP {
    Fork fork;
    Count count;
};

// Null until one is found. torch may be loaded after the first calls: while there is none, every so often one looks.
const OpenMP* openmp() {
    constexpr unsigned EVERY = 64;  // calls: looking takes about a microsecond for each hundred libraries
    static std::atomic<const OpenMP*> found{nullptr};
    static std::atomic<unsigned> calls{0};
    const OpenMP* runtime = found.load(std::memory_order_acquire);
    if (runtime || calls.fetch_add(1, std::memory_order_relaxed) % EVERY != 0) return runtime;
    const OpenMP now = {reinterpret_cast<Fork>(shared_symbol("GOMP_parallel")),
                        reinterpret_cast<Count>(shared_symbol("omp_get_num_threads"))};
    if (!now.fork || !now.count) return nullptr;
    static const OpenMP first = now;  // whoever else looks now finds the same
    found.store(&first, std::memory_order_release);
    return &first;
}

void join_borrowed(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    Team team(job.meeting, openmp()->count());
    job.body(job.context, team);
}

void join_own(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    Team team(job.meeting, job.size);
    job.body(job.context, team);
}

void run_on_crew(int threads, Job& job) {
    Crew& crew = Crew::of_this_thread();
    const int others = crew.muster(threads - 1);
    job.size = others + 1;
    crew.begin(others, join_own, &job);
    join_own(&job);
    crew.wait(others);
}

}  // namespace

void Team::end_step() {
    meeting_.steps.store(step_ + 1, std::memory_order_seq_cst);
    if (meeting_.sleepers.load(std::memory_order_seq_cst) > 0) wake_sleepers(meeting_.steps);
}

// Until so many steps are done.
void Team::wait(unsigned steps) {
    const auto goes_on = [&] { return meeting_.steps.load(std::memory_order_acquire) - steps < UINT_MAX / 2; };
    for (int spins = 0; spins < SPINS; spins++) {
        if (goes_on()) return;
        pause_briefly();
    }
    // Asleep rather than yielding: whoever yields goes behind all others of a busy machine, whoever sleeps is woken at
    // once, and the core meanwhile is for a thread that this one waits for. On two cores that eight others were using, a
    // ViT-B/32 took 30 ms so, and 140 where it yielded. Either side marks its own before it looks at the other's.
    meeting_.sleepers.fetch_add(1, std::memory_order_seq_cst);
    while (!goes_on()) sleep_while(meeting_.steps, steps - 1);
    meeting_.sleepers.fetch_sub(1, std::memory_order_relaxed);
}

void run_team(int threads, bool lasting, void (*body)(const void*, Team&), const void* context) {
    Job job = {{}, 1, body, context};
    const OpenMP* runtime = threads > 1 ? openmp() : nullptr;
    if (runtime)
        runtime->fork(join_borrowed, &job, static_cast<unsigned>(threads), 0);
    else if (threads > 1 && lasting)
        run_on_crew(threads, job);
    else
        join_own(&job);
}

}  // namespace clipq
