#include "system.h"

#include <cstdlib>
#include <thread>

#ifdef _WIN32
#include <malloc.h>
#else
#include <dlfcn.h>
#include <unistd.h>
#ifdef __linux__
#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif
#endif

namespace clipq {

namespace {

constexpr size_t BOUNDARY = 64;

}  // namespace

#ifdef _WIN32

void FreeAligned::operator()(void* memory) const { _aligned_free(memory); }

std::unique_ptr<void, FreeAligned> aligned_memory(size_t bytes) {
    return std::unique_ptr<void, FreeAligned>(_aligned_malloc(bytes ? bytes : 1, BOUNDARY));
}

// Modules share no names here, and the OpenMP runtime that torch brings (libiomp5md.dll) has none of GNU's entry
// points: LLVM leaves them out of its build for Windows.
void* shared_symbol(const char*) { return nullptr; }

int process_number() { return 0; }  // nothing forks

#else

void FreeAligned::operator()(void* memory) const { std::free(memory); }

std::unique_ptr<void, FreeAligned> aligned_memory(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, BOUNDARY, bytes ? bytes : 1) != 0) memory = nullptr;
    return std::unique_ptr<void, FreeAligned>(memory);
}

void* shared_symbol(const char* name) { return dlsym(RTLD_DEFAULT, name); }

int process_number() { return getpid(); }

#endif

int processors() {
#ifdef __linux__
    cpu_set_t allowed;  // 1024 of them; on a larger machine the call fails
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    const unsigned all = std::thread::hardware_concurrency();
    return all ? static_cast<int>(all) : 1;
}

#ifdef __linux__

void sleep_while(const std::atomic<unsigned>& value, unsigned old) {
    const timespec most = {0, 1000000};
    syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, &most, nullptr, 0);
}

void wake_sleepers(const std::atomic<unsigned>& value) {
    syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

#else

void sleep_while(const std::atomic<unsigned>&, unsigned) { std::this_thread::yield(); }

void wake_sleepers(const std::atomic<unsigned>&) {}

#endif

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace clipq
