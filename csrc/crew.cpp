// The care is in how members end. They are never joined: a thread that ends on Windows holds a lock which every other
// one needs to end too, and in a forked child there are none left to join. What a member touches lives as long as
// either side holds it. In a forked child the members are gone, but each still counts as a holder of its own part, which
// is therefore never destroyed, however the fork found it: the child forgets it, and starts members of its own.
#include "crew.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "spin.h"
#include "system.h"

namespace clipq {

namespace {

constexpr int AWAKE = 2000;  // pauses, some 50 us, for which a member looks for the next task before it sleeps

}  // namespace

struct Crew::Task {
    void (*run)(void*);
    void* argument;
};

struct Crew::Member {
    std::atomic<bool> called{false};  // by the caller, with the task; taken back by the member once it is done
    Task task;
    bool dismissed = false;
    std::mutex mutex;
    std::condition_variable wake;
};

Crew& Crew::of_this_thread() {
    static thread_local Crew crew;
    return crew;
}

Crew::~Crew() {
    if (process_ != process_number()) return;
    for (const auto& member : members_) {
        const std::lock_guard<std::mutex> lock(member->mutex);
        member->dismissed = true;
        member->wake.notify_one();
    }
}

int Crew::muster(int wanted) {
    if (process_ != process_number()) members_.clear();
    process_ = process_number();
    try {
        while (static_cast<int>(members_.size()) < wanted) {
            auto member = std::make_shared<Member>();
            members_.reserve(members_.size() + 1);
            std::thread(serve, member).detach();
            members_.push_back(std::move(member));
        }
    } catch (const std::exception&) {
        // No memory or no thread to be had: those that are there do the work.
    }
    return static_cast<int>(members_.size()) < wanted ? static_cast<int>(members_.size()) : wanted;
}

void Crew::begin(int count, void (*run)(void*), void* argument) {
    for (int i = 0; i < count; i++) {
        Member& member = *members_[static_cast<size_t>(i)];
        member.task = {run, argument};
        {
            const std::lock_guard<std::mutex> lock(member.mutex);  // or it could fall asleep between looking and waiting
            member.called.store(true, std::memory_order_release);
        }
        member.wake.notify_one();
    }
}

void Crew::wait(int count) {
    for (int i = 0; i < count; i++) {
        const Member& member = *members_[static_cast<size_t>(i)];
        spin_until([&] { return !member.called.load(std::memory_order_acquire); });
    }
}

void Crew::serve(std::shared_ptr<Member> member) {
    for (;;) {
        for (int i = 0; i < AWAKE && !member->called.load(std::memory_order_acquire); i++) pause_briefly();
        if (!member->called.load(std::memory_order_acquire)) {
            std::unique_lock<std::mutex> lock(member->mutex);
            member->wake.wait(lock, [&] { return member->called.load(std::memory_order_acquire) || member->dismissed; });
            if (member->dismissed) return;
        }
        member->task.run(member->task.argument);
        member->called.store(false, std::memory_order_release);
    }
}

}  // namespace clipq
