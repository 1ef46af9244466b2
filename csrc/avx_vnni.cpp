// AVX-VNNI: 6 x 16 tile in the 16 ymm registers (12 accumulators, 2 weights, 1 activation).
#include "vnni.h"

namespace {

struct AvxVnni : Vnni<8, 2> {
    // An asm statement because GCC spills the accumulators when given intrinsics. AT&T order: signed, unsigned, sum.
    // {vex} (its braces escaped) picks the encoding that processors without AVX-512 have.
    static void dot(Ints& sum, Acts a, Weights w) { asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w)); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx_vnni = Gemm<AvxVnni>::kernel();
}  // namespace clipq
