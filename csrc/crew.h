// Threads of our own, for processes that have no OpenMP runtime to borrow them from: the runtime without torch, and
// Windows. Every thread that calls keeps a crew of its own, so that concurrent callers do not meet. A call of a crew that
// is awake costs what one of OpenMP's does; starting a thread anew took some 45 us more (two cores, ViT towers).
#pragma once

#include <memory>
#include <vector>

namespace clipq {

class Crew {
  public:
    // The crew of the calling thread. Its members sleep between calls, and leave when the thread ends.
    static Crew& of_this_thread();

    ~Crew();

    // How many members there are, up to `wanted`: those that are missing are started, as far as they can be.
    int muster(int wanted);

    // Has run(argument) called by each of the first `count` members; `wait` returns once they are through.
    void begin(int count, void (*run)(void*), void* argument);
    void wait(int count);

  private:
    struct Member;
    struct Task;

    static void serve(std::shared_ptr<Member> member);

    std::vector<std::shared_ptr<Member>> members_;
    int process_ = 0;
};

}  // namespace clipq
