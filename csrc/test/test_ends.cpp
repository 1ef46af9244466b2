// What stands before and after the blocks of a tower, and the resizing of pictures, against plain arithmetic: the C ABI on
// every path of this processor, and the kernels' own parts on the emulated ones too. What is read and written is exactly
// as large as it has to be.
#include <algorithm>

#include "emulated.h"
#include "plain.h"

namespace {

using Pixels = std::vector<uint8_t>;

// -- the parts of a kernel --

// Rows of b and c may be read and written up to WIDEST floats.
bool product_is_right(const Kernel& kernel, Random& random) {
    const int64_t rows = random.size(20), k = random.size(60), columns = random.size(90), lda = k + random.from_to(0, 3);
    const int64_t ldb = round_up(columns, WIDEST);
    const Values a = random.values((rows - 1) * lda + k, -2, 2), b = random.values(k * ldb, -1, 1);
    Values c(static_cast<size_t>(rows * ldb), UNTOUCHED);
    kernel.product(a.data(), lda, b.data(), ldb, k, c.data(), ldb, rows, columns);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double right = 0;
            for (int64_t t = 0; t < k; t++) right += static_cast<double>(a.data()[i * lda + t]) * b.data()[t * ldb + j];
            if (!near(c.data()[i * ldb + j], right, 1e-6 * static_cast<double>(k))) return false;
        }
    return true;
}

uint8_t rounded_plainly(int64_t sum) {
    const int64_t value = (sum + (int64_t(1) << (TAP_BITS - 1))) >> TAP_BITS;
    return static_cast<uint8_t>(std::min<int64_t>(std::max<int64_t>(value, 0), 255));
}

// Weights that add up to about 1, some of them negative.
struct Pass {
    int64_t most;
    std::vector<int32_t> first, number, weight;

    Pass(Random& random, int64_t size, int64_t count) : most(random.from_to(1, std::min<int64_t>(size, 23))) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t taps = random.from_to(1, most);
            number.push_back(static_cast<int32_t>(taps));
            first.push_back(static_cast<int32_t>(random.from_to(0, size - taps)));
            for (int64_t t = 0; t < most; t++) {
                const float share = random.value(-0.4f, 1.6f) / static_cast<float>(taps);
                weight.push_back(t < taps ? static_cast<int32_t>(share * (1 << TAP_BITS)) : 0);
            }
        }
    }
    int64_t count() const { return static_cast<int64_t>(first.size()); }
    clipq_taps view() const { return {count(), most, first.data(), number.data(), weight.data()}; }
    uint8_t sum(int64_t output, const uint8_t* values, int64_t stride) const {
        int64_t all = 0;
        for (int64_t t = 0; t < number[static_cast<size_t>(output)]; t++)
            all += int64_t(values[(first[static_cast<size_t>(output)] + t) * stride]) * weight[static_cast<size_t>(output * most + t)];
        return rounded_plainly(all);
    }
};

Pixels bytes(Random& random, int64_t count) {
    Pixels all(static_cast<size_t>(count));
    for (uint8_t& v : all) v = static_cast<uint8_t>(random.chance(3) ? 255 * random.from_to(0, 1) : random.from_to(0, 255));
    return all;
}

bool across_is_right(const Kernel& kernel, Random& random) {
    const int64_t width = random.size(60);
    const Pass pass(random, width, random.size(20));
    const int64_t groups = (pass.most + TAPS - 1) / TAPS, stride = 3 * width + random.from_to(0, 5);
    const int64_t out_stride = PIXEL * pass.count() + random.from_to(0, 7);
    std::vector<int32_t> weights(static_cast<size_t>(pass.count() * groups * TAP_LANES));
    for (int64_t x = 0; x < pass.count(); x++)
        for (int64_t t = 0; t < pass.most; t++)
            for (int64_t c = 0; c < 3; c++)
                weights[static_cast<size_t>((x * groups + t / TAPS) * TAP_LANES + t % TAPS * 3 + c)] =
                    pass.weight[static_cast<size_t>(x * pass.most + t)];
    const Pixels rows = bytes(random, TAP_ROWS * stride + TAP_LANES);
    Pixels out(static_cast<size_t>((TAP_ROWS - 1) * out_stride + PIXEL * pass.count()), 77);
    kernel.across_rows(rows.data(), stride, {pass.count(), groups, pass.first.data(), pass.number.data()}, weights.data(),
                       out.data(), out_stride);
    for (int64_t r = 0; r < TAP_ROWS; r++)
        for (int64_t x = 0; x < pass.count(); x++)
            for (int64_t c = 0; c < 3; c++)
                if (out.data()[r * out_stride + PIXEL * x + c] != pass.sum(x, rows.data() + r * stride + c, 3)) return false;
    return true;
}

bool down_is_right(const Kernel& kernel, Random& random) {
    const int64_t bytes_of_row = TAP_LANES * random.size(6), stride = bytes_of_row + random.from_to(0, 9);
    const Pass pass(random, random.size(30), 1);
    const int64_t number = pass.number[0];
    const Pixels rows = bytes(random, (number - 1) * stride + bytes_of_row);
    Pixels out(static_cast<size_t>(bytes_of_row));
    kernel.down_row(rows.data(), stride, bytes_of_row, pass.weight.data(), number, out.data());
    for (int64_t i = 0; i < bytes_of_row; i++) {
        int64_t sum = 0;
        for (int64_t t = 0; t < number; t++) sum += int64_t(rows.data()[t * stride + i]) * pass.weight[static_cast<size_t>(t)];
        if (out.data()[i] != rounded_plainly(sum)) return false;
    }
    return true;
}

// -- the C ABI --

bool cutting_is_right(Random& random) {
    const int64_t batch = random.size(3), channels = random.size(4), down = random.size(6), across = random.size(6);
    const int64_t tall = random.size(4), wide = random.size(4);
    const int64_t height = tall * down + random.from_to(0, down - 1), width = wide * across + random.from_to(0, across - 1);
    const Values pixels = random.values(batch * channels * height * width, -1, 1);
    const int64_t k = channels * down * across;
    Values rows(static_cast<size_t>(batch * tall * wide * k), UNTOUCHED);
    const int threads = static_cast<int>(random.from_to(0, 3));
    if (clipq_cut_patches(threads, pixels.data(), batch, channels, height, width, down, across, rows.data())) return false;
    for (int64_t at = 0; at < static_cast<int64_t>(rows.size()); at++) {
        const int64_t row = at / k, c = at % k / (down * across), i = at % (down * across) / across, j = at % across;
        const int64_t picture = row / (tall * wide), y = row / wide % tall * down + i, x = row % wide * across + j;
        if (rows.data()[at] != pixels.data()[((picture * channels + c) * height + y) * width + x]) return false;
    }
    return true;
}

bool normed_is_right(const float* x, int64_t k, const float* weight, const float* bias, float eps, const float* y) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < k; i++) mean += x[i] / static_cast<double>(k);
    for (int64_t i = 0; i < k; i++) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(k);
    for (int64_t i = 0; i < k; i++) {
        const double right = (x[i] - mean) / std::sqrt(variance + eps) * weight[i] + bias[i];
        if (!near(y[i], right, 6.1e-8 * std::fabs(right) + 1e-12)) return false;  // rounded once, from float64
    }
    return true;
}

bool norm_is_right(Random& random) {
    const int64_t m = random.size(40), k = random.size(100), ldx = k + random.from_to(0, 4);
    const Values x = random.values((m - 1) * ldx + k, 2, 9), weight = random.values(k, -2, 2), bias = random.values(k, -1, 1);
    Values y(static_cast<size_t>(m * k));
    const int threads = static_cast<int>(random.from_to(0, 3));
    if (clipq_layer_norm(threads, x.data(), ldx, m, k, weight.data(), bias.data(), 1e-5f, y.data())) return false;
    for (int64_t i = 0; i < m; i++)
        if (!normed_is_right(x.data() + i * ldx, k, weight.data(), bias.data(), 1e-5f, y.data() + i * k)) return false;
    return true;
}

bool joining_is_right(Random& random) {
    const int64_t batch = random.size(4), patches = random.size(30), width = random.size(50), prefixes = random.from_to(0, 3);
    const int64_t tokens = prefixes + patches;
    const Values rows = random.values(batch * patches * width, -3, 3), prefix = random.values(prefixes * width, -3, 3);
    const Values places = random.values(patches * width, -1, 1), weight = random.values(width, -2, 2);
    const Values bias = random.values(width, -1, 1);
    const bool placed = random.chance(2), normed = random.chance(2);
    Values y(static_cast<size_t>(batch * tokens * width), UNTOUCHED), plain(static_cast<size_t>(width));
    const int threads = static_cast<int>(random.from_to(0, 3));
    if (clipq_join_tokens(threads, rows.data(), batch, patches, width, prefix.data(), prefixes, placed ? places.data() : nullptr,
                          normed ? weight.data() : nullptr, normed ? bias.data() : nullptr, normed ? 1e-6f : -1.0f, y.data()))
        return false;
    for (int64_t row = 0; row < batch * tokens; row++) {
        const int64_t patch = row % tokens - prefixes;
        for (int64_t i = 0; i < width; i++) {
            const float value = patch < 0 ? prefix.data()[row % tokens * width + i]
                                          : rows.data()[(row / tokens * patches + patch) * width + i];
            plain[static_cast<size_t>(i)] = patch >= 0 && placed ? value + places.data()[patch * width + i] : value;
        }
        const float* found = y.data() + row * width;
        if (normed ? !normed_is_right(plain.data(), width, weight.data(), bias.data(), 1e-6f, found)
                   : !std::equal(plain.begin(), plain.end(), found))
            return false;
    }
    return true;
}

bool float_linear_is_right(int path, Random& random) {
    const int64_t m = random.size(40), k = random.size(60), n = WIDEST * random.size(6);
    const Values x = random.values(m * k, -2, 2), weight = random.values(k * n, -1, 1), bias = random.values(n, -1, 1);
    const bool biased = random.chance(2);
    const auto run = [&](int64_t first, int64_t rows, int threads) {
        Values y(static_cast<size_t>(rows * n), UNTOUCHED);
        const int status = clipq_float_linear(path, threads, x.data() + first * k, rows, k, weight.data(),
                                              biased ? bias.data() : nullptr, n, y.data());
        return status ? Values() : y;
    };
    const Values y = run(0, m, static_cast<int>(random.from_to(0, 3)));
    if (y.empty()) return false;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double right = biased ? bias.data()[j] : 0;
            for (int64_t t = 0; t < k; t++) right += static_cast<double>(x.data()[i * k + t]) * weight.data()[t * n + j];
            if (!near(y.data()[i * n + j], right, 1e-6 * static_cast<double>(k + 1))) return false;
        }
    const int64_t row = random.from_to(0, m - 1);  // which has the same bits alone
    return same(run(row, 1, 1), Values(y.begin() + row * n, y.begin() + (row + 1) * n));
}

bool pooling_is_right(int path, Random& random) {
    const int64_t batch = random.size(5), heads = random.size(4), dim = random.size(40), width = heads * dim;
    const std::vector<int64_t> offsets = random.offsets(batch, 40);
    const int64_t rows = offsets.back();
    const Values q = random.values(width, -2, 2), kv = random.values(rows * 2 * width, -2, 2);
    const auto run = [&](const std::vector<int64_t>& where, const float* from, int threads) {
        Values y((where.size() - 1) * static_cast<size_t>(width), UNTOUCHED);
        const int64_t count = static_cast<int64_t>(where.size()) - 1;
        const int status = clipq_pool_attention(path, threads, q.data(), from, where.data(), count, heads, dim, y.data());
        return status ? Values() : y;
    };
    const Values y = run(offsets, kv.data(), static_cast<int>(random.from_to(0, 3)));
    if (y.empty()) return false;
    for (int64_t i = 0; i < batch; i++) {
        const int64_t begin = offsets[static_cast<size_t>(i)], keys = offsets[static_cast<size_t>(i + 1)] - begin;
        const float* own = kv.data() + begin * 2 * width;
        for (int64_t h = 0; h < heads; h++)
            if (!attended_is_right(q.data() + h * dim, own + h * dim, own + width + h * dim, 2 * width, keys, dim,
                                   y.data() + i * width + h * dim))
                return false;
        if (!same(run({0, keys}, own, 1), Values(y.begin() + i * width, y.begin() + (i + 1) * width))) return false;
    }
    return true;
}

bool preprocessing_is_right(int path, Random& random) {
    const int64_t height = random.size(40), width = random.size(50);
    const Pass across(random, width, random.size(25)), down(random, height, random.size(25));
    const Pixels pixels = bytes(random, height * width * 3);
    const Values table = random.values(3 * 256, -2, 2);
    const int64_t plane = down.count() * across.count();
    Values out(static_cast<size_t>(3 * plane), UNTOUCHED);
    const clipq_taps wide = across.view(), tall = down.view();
    if (clipq_preprocess(path, pixels.data(), height, width, &wide, &tall, table.data(), out.data())) return false;
    Pixels column(static_cast<size_t>(height));
    for (int64_t c = 0; c < 3; c++)
        for (int64_t x = 0; x < across.count(); x++) {
            for (int64_t y = 0; y < height; y++)
                column[static_cast<size_t>(y)] = across.sum(x, pixels.data() + y * width * 3 + c, 3);
            for (int64_t y = 0; y < down.count(); y++)
                if (out.data()[c * plane + y * across.count() + x] != table.data()[256 * c + down.sum(y, column.data(), 1)])
                    return false;
        }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const Seeds seeds(argc, argv);
    const std::vector<NamedKernel> kernels = testable_kernels();
    const std::vector<int> paths = supported_paths();
    Report report;
    seeds.each(report, [&](Random& random) {
        report.check(cutting_is_right(random), "cut patches", "any path");
        report.check(norm_is_right(random), "a LayerNorm", "any path");
        report.check(joining_is_right(random), "joined tokens", "any path");
        const Random same_for_all = random;
        for (const int path : paths) {
            random = same_for_all;
            report.check(float_linear_is_right(path, random), "a float linear", path);
            report.check(pooling_is_right(path, random), "an attention pool", path);
            report.check(preprocessing_is_right(path, random), "a resized picture", path);
        }
        for (const auto& [name, kernel] : kernels) {
            random = same_for_all;
            report.check(product_is_right(*kernel, random), "a float product", name);
            report.check(across_is_right(*kernel, random), "a pass across", name);
            report.check(down_is_right(*kernel, random), "a pass down", name);
        }
    });
    for (const auto& [name, kernel] : kernels)
        std::printf("ends of %s: %lld cases\n", name, static_cast<long long>(seeds.cases));
    return report.status();
}
