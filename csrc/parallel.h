#pragma once

#include <atomic>
#include <cstdint>

namespace clipq {

// What the threads of one call share: how many tasks were taken and how many are done, of all steps so far, and how many
// steps are done.
struct Meeting {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<unsigned> steps{0};
    std::atomic<int> seats{0}, sleepers{0};
};

// One thread's part in a call that several threads run side by side: each of them goes through the same steps, and a
// step's tasks are handed out one by one, because on a shared machine one thread may be much slower than another. A step
// ends with its last task, whoever did it: nobody waits for a thread that has taken none, and one that comes late finds
// the steps before it done. So what a thread does between steps has to be right at any later time as well.
class Team {
  public:
    Team(Meeting& meeting, int size) : meeting_(meeting), size_(size), seat_(meeting.seats.fetch_add(1)) {}

    int size() const { return size_; }
    int seat() const { return seat_; }  // this thread's number, from 0

    // Calls body(task) for every task in [0, tasks), on whichever thread is free; returns once all are done.
    template <class Body>
    void each(int64_t tasks, const Body& body) {
        if (size_ == 1) {
            for (int64_t task = 0; task < tasks; task++) body(task);
            return;
        }
        if (tasks <= 0) return;
        const int64_t end = begin_ + tasks;
        for (int64_t task = meeting_.next.load(std::memory_order_relaxed); task < end;) {
            if (!meeting_.next.compare_exchange_weak(task, task + 1, std::memory_order_relaxed)) continue;
            body(task - begin_);
            if (meeting_.done.fetch_add(1, std::memory_order_acq_rel) + 1 == end) end_step();
            task = meeting_.next.load(std::memory_order_relaxed);
        }
        begin_ = end;
        wait(++step_);
    }

  private:
    void end_step();
    void wait(unsigned steps);

    Meeting& meeting_;
    int size_, seat_;
    int64_t begin_ = 0;  // of this step's tasks, counted through all steps
    unsigned step_ = 0;
};

// Runs body(context, team) on up to `threads` threads at once, the caller among them. `lasting` says that the work
// takes a millisecond or more, so that waking a thread of our own for it pays.
void run_team(int threads, bool lasting, void (*body)(const void*, Team&), const void* context);

template <class Body>
void with_team(int threads, bool lasting, const Body& body) {
    run_team(threads, lasting, [](const void* b, Team& team) { (*static_cast<const Body*>(b))(team); }, &body);
}

}  // namespace clipq
