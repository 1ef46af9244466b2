// All that the operating systems do each in its own way: the rest of csrc/ does not ask on which of them it runs, but
// for the probing of Arm processors in cpu.cpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace clipq {

struct FreeAligned {
    void operator()(void* memory) const;
};

// `bytes` of memory on a 64-byte boundary, or null where there are none to be had.
std::unique_ptr<void, FreeAligned> aligned_memory(size_t bytes);

// The address of `name` among what the libraries loaded by now share with the whole process, or null.
void* shared_symbol(const char* name);

// A number that a forked child does not share with its parent.
int process_number();

// Processors that this process may run on, at least 1.
int processors();

// Sleeps while `value` is `old`, for a millisecond at most, until wake_sleepers; or only leaves the processor to others.
void sleep_while(const std::atomic<unsigned>& value, unsigned old);
void wake_sleepers(const std::atomic<unsigned>& value);

// A few cycles in a loop that waits for another core.
void pause_briefly();

}  // namespace clipq
