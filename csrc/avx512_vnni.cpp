// AVX512-VNNI: 6 x 64 tile, 24 accumulators + 4 weights + 1 activation of 32 zmm registers.
#include "vnni.h"

namespace {

struct Avx512Vnni : Vnni<16, 4> {
    // An asm statement because GCC spills the accumulators when given intrinsics, at half the speed.
    // AT&T order: signed, unsigned, sum.
    static void dot(Ints& sum, Acts a, Weights w) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
};

}  // namespace

namespace clipq {
const Kernel kernel_avx512_vnni = Gemm<Avx512Vnni>::kernel();
}  // namespace clipq
