// The other steps of a transformer block, of every kernel, against plain arithmetic in double: LayerNorm on the way to
// int8, what follows a product in its epilogue, attention, and whole blocks of one path against another's.
// What is read and written is exactly as large as it has to be, on the heap, for the sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "emulated.h"

namespace {

using Values = std::vector<float>;

struct Random {
    std::mt19937 engine;

    int64_t from_to(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(engine() % static_cast<unsigned>(high - low + 1));
    }
    Values values(int64_t count, float low, float high) {
        Values all(static_cast<size_t>(count));
        for (float& v : all) v = std::uniform_real_distribution<float>(low, high)(engine);
        return all;
    }
    std::vector<int8_t> weights(int64_t count) {
        std::vector<int8_t> all(static_cast<size_t>(count));
        for (int8_t& w : all) w = static_cast<int8_t>(from_to(-127, 127));
        return all;
    }
};

bool near(double value, double right, double error) { return std::fabs(value - right) <= error; }

bool layer_norm_is_right(const Kernel& kernel, Random& random) {
    const int64_t k = random.from_to(1, 150), m = 3;
    const Values x = random.values(m * k, -2, 5), weight = random.values(k, 0.5f, 2), bias = random.values(k, -1, 1);
    std::vector<int8_t> q(static_cast<size_t>(m * k));
    float scale[m];
    int32_t zero_point[m];
    const float eps = 1e-5f;
    kernel.quantize_int8({x.data(), k, k, eps, weight.data(), bias.data()}, false, {q.data(), scale, zero_point}, 0, m);
    for (size_t i = 0, at = 0; i < m; i++) {
        const float* row = x.data() + static_cast<int64_t>(i) * k;
        double mean = 0, variance = 0;
        for (int64_t j = 0; j < k; j++) mean += row[j] / static_cast<double>(k);
        for (int64_t j = 0; j < k; j++) variance += (row[j] - mean) * (row[j] - mean) / static_cast<double>(k);
        for (size_t j = 0; j < static_cast<size_t>(k); j++, at++) {
            const double right = (row[j] - mean) / std::sqrt(variance + eps) * weight[j] + bias[j];
            // At the ends of the range the zero point's own rounding counts as well.
            if (!near((q[at] - zero_point[i]) * static_cast<double>(scale[i]), right, 1.001 * scale[i] + 1e-5))
                return false;
        }
    }
    return true;
}

double activated_plainly(double x, int activation) {
    switch (activation) {
        case CLIPQ_GELU: return x * std::erfc(-x / std::sqrt(2.0)) / 2;
        case CLIPQ_GELU_TANH: return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
        case CLIPQ_QUICK_GELU: return x / (1 + std::exp(-1.702 * x));
        default: return x;
    }
}

bool epilogue_is_right(const Kernel& kernel, Random& random) {
    const int64_t m = random.from_to(1, 15), n = random.from_to(1, 140), k = random.from_to(1, 40);
    const Values x = random.values(m * k, -3, 3), weight_scale = random.values(n, 0, 0.02f);
    const Values bias = random.values(n, -1, 1), layer_scale = random.values(n, -2, 2), y = random.values(m * n, -5, 5);
    const std::vector<int8_t> weight = random.weights(n * k);
    std::vector<uint8_t> packed(kernel.packed_size(n, k)), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    Values scale(static_cast<size_t>(m));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.pack(weight.data(), n, k, packed.data());
    kernel.quantize({x.data(), k, k, -1.0f, nullptr, nullptr}, false, rows, 0, m);
    const auto multiplied = [&](int activation, bool accumulate, const float* layer_scales) {
        Values out = y;
        kernel.multiply({rows, packed.data(), weight_scale.data(), bias.data(), out.data(), n, n, k, activation,
                         accumulate, layer_scales}, 0, m, 0, (n - 1) / kernel.panel_cols + 1);
        return out;
    };
    const Values plain = multiplied(CLIPQ_NO_ACTIVATION, false, nullptr);
    const Values added = multiplied(CLIPQ_NO_ACTIVATION, true, nullptr);
    const Values scaled = multiplied(CLIPQ_NO_ACTIVATION, true, layer_scale.data());
    bool right = true;
    for (size_t i = 0; i < plain.size(); i++) {
        right &= added[i] == y[i] + plain[i];
        right &= scaled[i] == y[i] + plain[i] * layer_scale[i % static_cast<size_t>(n)];
    }
    for (int activation = 0; activation < CLIPQ_ACTIVATIONS; activation++) {
        const Values out = multiplied(activation, false, nullptr);
        for (size_t i = 0; i < out.size(); i++)
            right &= near(out[i], activated_plainly(plain[i], activation), 2e-6 * std::fmax(1, std::fabs(plain[i])));
    }
    return right;
}

bool attention_is_right(const Kernel& kernel, Random& random) {
    const int64_t queries = random.from_to(1, 60), keys = random.from_to(queries, 70), dim = random.from_to(1, 70);
    const int64_t visible = random.from_to(1, keys);
    const Values q = random.values(queries * dim, -3, 3), k = random.values(keys * dim, -3, 3);
    const Values v = random.values(keys * dim, -1, 1);
    Values out(static_cast<size_t>(queries * dim)), scratch(static_cast<size_t>(kernel.attention_scratch(keys, dim)));
    kernel.attend({q.data(), k.data(), v.data(), dim, dim, out.data(), dim, queries, keys, dim, visible},
                  scratch.data());
    for (int64_t i = 0; i < queries; i++) {
        const int64_t seen = at_most(keys, visible + i);
        std::vector<double> share, mixed(static_cast<size_t>(dim));
        double sum = 0;
        for (int64_t j = 0; j < seen; j++) {
            double dot = 0;
            for (int64_t d = 0; d < dim; d++)
                dot += static_cast<double>(q.data()[i * dim + d]) * k.data()[j * dim + d];
            share.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
            sum += share.back();
        }
        for (int64_t d = 0; d < dim; d++) {
            double right = 0;
            for (int64_t j = 0; j < seen; j++) right += share[static_cast<size_t>(j)] / sum * v.data()[j * dim + d];
            if (!near(out.data()[i * dim + d], right, 1e-5)) return false;
        }
    }
    return true;
}

struct Matrix {
    std::vector<int8_t> weight;
    Values scale, bias;

    Matrix(Random& random, int64_t n, int64_t k)
        : weight(random.weights(n * k)), scale(random.values(n, 0, 0.01f)), bias(random.values(n, -0.1f, 0.1f)) {}

    clipq_matrix view() const { return {weight.data(), scale.data(), bias.data()}; }
};

// One block over 3 sequences of other lengths, on as many threads; empty if a call fails.
Values block_on(int path, int threads, unsigned seed) {
    Random random = {std::mt19937(seed)};
    const int64_t heads = random.from_to(1, 4), width = heads * random.from_to(8, 40), hidden = random.from_to(30, 300);
    const int64_t offsets[] = {0, 1, 40, 131};
    const Matrix qkv(random, 3 * width, width), out_proj(random, width, width), fc1(random, hidden, width);
    const Matrix fc2(random, width, hidden);
    const Values ones = random.values(width, 0.5f, 1.5f), zeros = random.values(width, -0.1f, 0.1f);
    const Values x = random.values(offsets[3] * width, -1, 1);
    const clipq_block block = {width, hidden, heads, CLIPQ_GELU, 0, 1e-5f, 1e-5f, ones.data(), zeros.data(),
                               ones.data(), zeros.data(), qkv.view(), out_proj.view(), fc1.view(), fc2.view(),
                               nullptr, ones.data()};
    const size_t size = clipq_block_size(path, &block);
    const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(64, size ? size : 64), std::free);
    uint8_t* packed = static_cast<uint8_t*>(memory.get());
    Values y(x.size());
    if (!size || clipq_pack_block(path, &block, packed)) return {};
    return clipq_run_blocks(threads, &packed, 1, x.data(), offsets, 3, 1, nullptr, 0, y.data()) ? Values() : y;
}

// Root of the mean square of the difference.
double distance(const Values& a, const Values& b) {
    if (a.size() != b.size() || a.empty()) return 1e9;
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (a[i] - static_cast<double>(b[i])) * (a[i] - b[i]);
    return std::sqrt(sum / static_cast<double>(a.size()));
}

// Paths differ in the last bits of their floats; where that rounds a value to int8 the other way, by a bit more.
bool blocks_agree(unsigned seed) {
    const Values plain = block_on(CLIPQ_PORTABLE, 1, seed), here = block_on(clipq_path(), 1, seed);
    const double size = distance(plain, Values(plain.size()));
    return distance(plain, here) < 0.01 * size && block_on(clipq_path(), 3, seed) == here;
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 300;
    int wrong = 0;
    const auto check = [&](bool right, const char* what, const char* name, int seed) {
        if (!right && ++wrong <= 10) std::printf("%s: %s is wrong, seed %d\n", name, what, seed);
    };
    for (int seed = 0; seed < cases; seed++) {
        for (const auto& [name, kernel] : testable_kernels()) {
            Random random = {std::mt19937(static_cast<unsigned>(seed))};
            check(layer_norm_is_right(*kernel, random), "LayerNorm", name, seed);
            check(epilogue_is_right(*kernel, random), "an epilogue", name, seed);
            check(attention_is_right(*kernel, random), "attention", name, seed);
        }
        if (seed % 20 == 0) check(blocks_agree(static_cast<unsigned>(seed)), "a block", "the chosen path", seed);
    }
    for (const auto& [name, kernel] : testable_kernels()) std::printf("steps of %s: %d cases\n", name, cases);
    return wrong != 0;
}
