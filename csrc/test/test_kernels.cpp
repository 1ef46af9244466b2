// Every kernel against plain arithmetic on small and awkward shapes. Made for the address and undefined-behaviour
// sanitizers: x, y and the packed weight are exactly as large as they have to be, on the heap.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../clipq.h"
#include "emulated.h"

namespace {

struct Case {
    int64_t m, n, k, ldx, ldy;
    bool symmetric, bias;
    int kind;  // of numbers: 0 random, 1 the extremes, 2 zeros, 3 one sign, 4 a NaN and an infinity, 5 tiny and huge
    std::vector<float> x, scale, offset;
    std::vector<int8_t> weight;
};

float value(std::mt19937& random, int kind) {
    const float unit = std::uniform_real_distribution<float>(-1, 1)(random);
    switch (kind) {
        case 1: return unit < 0 ? -1.0f : 1.0f;
        case 2: return 0.0f;
        case 3: return std::fabs(unit) + 1.0f;
        case 4: return unit > 0.9f ? NAN : unit > 0.8f ? std::numeric_limits<float>::infinity() : unit;
        case 5: return unit * (random() % 2 ? 1e-42f : 1e-30f);
        default: return unit * 3;
    }
}

Case make_case(std::mt19937& random) {
    const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<unsigned>(limit)); };
    const int64_t m = 1 + below(15), n = 1 + below(140), k = 1 + below(150);
    const int kind = static_cast<int>(below(6));
    Case c = {m, n, k, 0, 0, below(2) == 0, below(2) == 0, kind, {}, {}, {}, {}};
    c.ldx = c.k + below(5);
    c.ldy = c.n + below(5);
    c.x.resize(static_cast<size_t>((c.m - 1) * c.ldx + c.k));
    for (float& v : c.x) v = value(random, c.kind);
    for (int64_t i = 0; i < c.n; i++) {
        c.scale.push_back(std::fabs(value(random, 0)));
        c.offset.push_back(value(random, 0));
    }
    c.weight.resize(static_cast<size_t>(c.n * c.k));
    const int8_t extremes[] = {-128, -127, 127};
    const int8_t extreme = extremes[below(3)];
    for (int8_t& w : c.weight) w = c.kind == 1 ? extreme : static_cast<int8_t>(below(256) - 128);
    return c;
}

struct Row {
    float scale;
    int zero_point;
    std::vector<int> q;
};

// Straight from the definition in clipq/functional.py.
Row quantized(const float* x, int64_t k, bool symmetric) {
    float low = 0, high = 0;
    bool finite = true;
    for (int64_t i = 0; i < k; i++) {
        finite = finite && std::isfinite(x[i]);
        low = std::fmin(low, x[i]);
        high = std::fmax(high, x[i]);
    }
    Row row = {symmetric ? std::fmax(-low, high) / 127 : (high - low) / 255, 0, {}};
    row.scale = row.scale == 0 ? 1 : std::fmax(row.scale, std::numeric_limits<float>::min());
    if (!finite) row.scale = NAN;
    if (finite && !symmetric) row.zero_point = static_cast<int>(std::fmin(-128 - std::nearbyint(low / row.scale), 127));
    for (int64_t i = 0; i < k; i++) {
        const float q = std::nearbyint(x[i] / row.scale) + static_cast<float>(row.zero_point);
        row.q.push_back(finite ? static_cast<int>(std::fmin(std::fmax(q, symmetric ? -127 : -128), 127)) : 0);
    }
    return row;
}

std::vector<float> expected(const Case& c) {
    std::vector<float> y(static_cast<size_t>((c.m - 1) * c.ldy + c.n), 12345.0f);
    for (int64_t i = 0; i < c.m; i++) {
        const Row row = quantized(c.x.data() + i * c.ldx, c.k, c.symmetric);
        for (int64_t j = 0; j < c.n; j++) {
            int64_t sum = 0;
            for (int64_t t = 0; t < c.k; t++)
                sum += (row.q[static_cast<size_t>(t)] - row.zero_point) * c.weight[static_cast<size_t>(j * c.k + t)];
            const float scaled = static_cast<float>(sum) * row.scale * c.scale[static_cast<size_t>(j)];
            y[static_cast<size_t>(i * c.ldy + j)] = scaled + (c.bias ? c.offset[static_cast<size_t>(j)] : 0.0f);
        }
    }
    return y;
}

struct Free {
    void operator()(void* p) const { std::free(p); }
};

std::vector<float> computed(const Kernel& kernel, const Case& c) {
    const std::unique_ptr<uint8_t, Free> packed(static_cast<uint8_t*>(std::malloc(kernel.packed_size(c.n, c.k))));
    const size_t acts_size = static_cast<size_t>(kernel.row_stride(c.k) * c.m);
    const std::unique_ptr<char, Free> acts(static_cast<char*>(std::malloc(acts_size)));
    std::vector<float> scale(static_cast<size_t>(c.m)), y(static_cast<size_t>((c.m - 1) * c.ldy + c.n), 12345.0f);
    std::vector<int32_t> zero_point(static_cast<size_t>(c.m));
    const Rows rows = {acts.get(), scale.data(), zero_point.data()};
    kernel.pack(c.weight.data(), c.n, c.k, packed.get());
    kernel.quantize({c.x.data(), c.ldx, c.k, -1.0f, nullptr, nullptr}, c.symmetric, rows, 0, c.m);
    const float* bias = c.bias ? c.offset.data() : nullptr;
    const Linear job = {rows, packed.get(), c.scale.data(), bias, y.data(), c.ldy, c.n, c.k, CLIPQ_NO_ACTIVATION, false,
                        nullptr};
    kernel.multiply(job, 0, c.m, 0, (c.n - 1) / kernel.panel_cols + 1);
    return y;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); i++)
        if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
    return a.size() == b.size();
}

// The C ABI on one thread with plain loops, and on four with what the processor has. The threads are its own, since no
// OpenMP runtime is loaded here, and the work is long enough for them.
bool threads_agree() {
    const int64_t m = 90, n = 600, k = 700;
    std::mt19937 random(1);
    std::vector<float> x(static_cast<size_t>(m * k)), scale(static_cast<size_t>(n), 0.5f), results[2];
    std::vector<int8_t> weight(static_cast<size_t>(n * k));
    for (float& v : x) v = value(random, 0);
    for (int8_t& w : weight) w = static_cast<int8_t>(random());
    for (int i = 0; i < 2; i++) {
        const int path = i ? clipq_path() : CLIPQ_PORTABLE;
        std::vector<uint8_t> packed(clipq_packed_size(path, n, k));
        if (clipq_pack(path, weight.data(), n, k, packed.data())) return false;
        results[i].resize(static_cast<size_t>(m * n));
        if (clipq_linear(path, 1 + 3 * i, x.data(), k, m, packed.data(), scale.data(), nullptr,
                         results[i].data(), n, n, k, 0))
            return false;
    }
    return same(results[0], results[1]);
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 300;
    const std::vector<NamedKernel> kernels = testable_kernels();
    int wrong = !threads_agree();
    if (wrong) std::printf("one thread and four disagree\n");
    for (int seed = 0; seed < cases; seed++) {
        std::mt19937 random(static_cast<unsigned>(seed));
        const Case c = make_case(random);
        const std::vector<float> right = expected(c);
        for (const auto& [name, kernel] : kernels)
            if (!same(computed(*kernel, c), right) && ++wrong <= 10)
                std::printf("%s: seed %d differs (m %d n %d k %d kind %d)\n", name, seed, static_cast<int>(c.m),
                            static_cast<int>(c.n), static_cast<int>(c.k), c.kind);
    }
    for (const auto& [name, kernel] : kernels) std::printf("%s: %d cases\n", name, cases);
    std::printf("chosen: path %d\n", clipq_path());
    return wrong != 0;
}
