// The kernels that can be tested here: those that the processor has, the portable one, and the VNNI tiles with the dot
// product and the fused multiply-add in plain C++, so that all but those two instructions is tested anywhere.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "../clipq.h"
#include "../vnni.h"

namespace {

template <int WIDTH, int VECTORS>
struct Emulated : Vnni<WIDTH, VECTORS> {
    static constexpr bool FUSED = true, INTEGERS_PAY = true, SCALES = WIDTH == 16, HALVES = WIDTH == 16;
    using Base = Vnni<WIDTH, VECTORS>;
    using Floats = typename Base::Floats;
    typedef int32_t Half __attribute__((vector_size(2 * WIDTH)));
    typedef float HalfFloats __attribute__((vector_size(2 * WIDTH)));
    static Floats fma(Floats a, Floats b, Floats c) {
        Floats all;
        for (int l = 0; l < WIDTH; l++) all[l] = std::fma(a[l], b[l], c[l]);
        return all;
    }
    static void dot(typename Base::Ints& sum, const typename Base::Acts& a, const typename Base::Weights& w) {
        uint8_t unsigned_bytes[4 * WIDTH];
        int8_t signed_bytes[4 * WIDTH];
        memcpy(unsigned_bytes, &a, sizeof a);
        memcpy(signed_bytes, &w, sizeof w);
        for (int l = 0; l < WIDTH; l++)
            for (int j = 0; j < 4; j++) sum[l] += unsigned_bytes[4 * l + j] * signed_bytes[4 * l + j];
    }
    template <class Sum>
    static void dot_pairs(Sum& sum, typename Base::Ints a, Sum b) {
        for (size_t l = 0; l < sizeof sum / 4; l++)
            sum[l] += static_cast<int16_t>(a[l]) * static_cast<int16_t>(b[l]) + (a[l] >> 16) * (b[l] >> 16);
    }
    static Floats above_floor(Floats x) {
        for (int l = 0; l < WIDTH; l++) x[l] -= std::floor(x[l]);
        return x;
    }
    static Floats scaled(Floats p, Floats x) {
        for (int l = 0; l < WIDTH; l++) p[l] = static_cast<float>(p[l] * std::exp2(std::floor(x[l])));
        return p;
    }
};

using NamedKernel = std::pair<const char*, const Kernel*>;

inline std::vector<NamedKernel> testable_kernels() {
    static const Kernel emulated256 = kernel_of<Emulated<8, 2>>(), emulated512 = kernel_of<Emulated<16, 4>>();
    std::vector<NamedKernel> kernels = {
        {"portable", &kernel_portable}, {"emulated avx_vnni", &emulated256}, {"emulated avx512_vnni", &emulated512}};
#ifdef CLIPQ_HAVE_AVX2
    if (clipq_supports(CLIPQ_AVX2)) kernels.push_back({"avx2", &kernel_avx2});
#endif
#ifdef CLIPQ_HAVE_AVX_VNNI
    if (clipq_supports(CLIPQ_AVX_VNNI)) kernels.push_back({"avx_vnni", &kernel_avx_vnni});
#endif
#ifdef CLIPQ_HAVE_AVX512_VNNI
    if (clipq_supports(CLIPQ_AVX512_VNNI)) kernels.push_back({"avx512_vnni", &kernel_avx512_vnni});
#endif
#ifdef CLIPQ_HAVE_NEON_DOTPROD
    if (clipq_supports(CLIPQ_NEON_DOTPROD)) kernels.push_back({"neon_dotprod", &kernel_neon_dotprod});
#endif
    return kernels;
}

}  // namespace
