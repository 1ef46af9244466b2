#include "cpu.h"

#include "clipq.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace clipq {

#if defined(__x86_64__)

namespace {

struct Features {
    bool avx2, avx_vnni, avx512_vnni;
};

constexpr bool has(unsigned bits, int bit) { return bits >> bit & 1; }

// Register state that the operating system saves (XCR0): bits 1-2 for ymm, 5-7 for zmm and masks as well.
unsigned saved_state() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

Features probe() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return {};
    const bool os_saves = has(c, 27), avx = has(c, 28), fma = has(c, 12);
    if (!os_saves || !avx) return {};
    const unsigned state = saved_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
    const unsigned subleaves = a;
    const bool avx2 = fma && (state & 0x06) == 0x06 && has(b, 5);
    const bool avx512 = avx2 && (state & 0xE0) == 0xE0 && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31);
    const bool vnni512 = avx512 && has(c, 11);
    const bool vnni256 = subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, 4);
    return {avx2, avx2 && vnni256, vnni512};
}

}  // namespace

bool cpu_supports(int path) {
    static const Features features = probe();  // once: under a hypervisor each cpuid costs some 5 us
    return path == CLIPQ_PORTABLE || (path == CLIPQ_AVX2 && features.avx2) ||
           (path == CLIPQ_AVX_VNNI && features.avx_vnni) || (path == CLIPQ_AVX512_VNNI && features.avx512_vnni);
}

#elif defined(__aarch64__)

namespace {

#if defined(__linux__)

bool has_dotprod() {
    constexpr unsigned long bit = 1ul << 20;  // HWCAP_ASIMDDP, which C libraries before 2018 do not name
    return (getauxval(AT_HWCAP) & bit) != 0;
}

#elif defined(__APPLE__)

bool has_dotprod() {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
}

#else

bool has_dotprod() { return false; }

#endif

}  // namespace

bool cpu_supports(int path) {
    static const bool dotprod = has_dotprod();
    return path == CLIPQ_PORTABLE || (path == CLIPQ_NEON_DOTPROD && dotprod);
}

#else

bool cpu_supports(int path) { return path == CLIPQ_PORTABLE; }

#endif

}  // namespace clipq
