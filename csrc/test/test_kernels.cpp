// The int8 linear of every kernel against plain arithmetic on small and awkward shapes: equal bits. Made for the
// address and undefined-behaviour sanitizers: what is read and written is as large as it has to be, on the heap.
#include "emulated.h"
#include "plain.h"

namespace {

// Of numbers.
enum Kind { RANDOM, EXTREMES, ZEROS, ONE_SIGN, NOT_FINITE, TINY, TIES, ANY_SIZE, KINDS };

struct Case {
    Matrix matrix;
    int64_t m, ldx, ldy;
    Grid grid;
    bool bias;
    Values x;
};

float value(Random& random, int kind) {
    const float unit = random.value(-1, 1);
    switch (kind) {
        case EXTREMES: return unit < 0 ? -1.0f : 1.0f;
        case ZEROS: return 0.0f;
        case ONE_SIGN: return std::fabs(unit) + 1.0f;
        case NOT_FINITE: return unit > 0.9f ? NAN : unit > 0.8f ? std::numeric_limits<float>::infinity() : unit;
        case TINY: return unit * (random.chance(2) ? 1e-42f : 1e-30f);
        default: return unit * 3;
    }
}

// Rows of any size that a float can have, and values next to where rounding to int8 tips: the quotient has to be exact.
void put_on_edges(Random& random, const Case& c, int kind, float* x) {
    const int64_t k = c.matrix.k;
    const float size = std::pow(10.0f, random.value(-44, kind == TIES ? 3 : 38));
    for (int64_t i = 0; i < k; i++) x[i] = random.value(-1, 1) * size;
    if (kind == ANY_SIZE || size < 1e-36f) return;
    float low = 0, high = 0;
    for (int64_t i = 0; i < k; i++) {
        low = std::fmin(low, x[i]);
        high = std::fmax(high, x[i]);
    }
    const float step = c.grid.symmetric ? std::fmax(-low, high) / 127 : (high - low) / 255;
    for (int64_t i = 0; i < k; i++) {
        const float tie = (std::floor(x[i] / step) + 0.5f) * step;
        if (tie > low && tie < high && x[i] != low && x[i] != high)
            x[i] = random.chance(3) ? std::nextafter(tie, random.chance(2) ? high : low) : tie;
    }
}

Case make_case(Random& random) {
    const int64_t m = random.size(15), n = random.size(140), k = random.size(150);
    const int64_t kind = random.from_to(0, KINDS - 1);
    Case c = {{random, n, k}, m, k + random.from_to(0, 4), n + random.from_to(0, 4), random.chance(2), random.chance(2),
              Values(0)};
    c.x = Values(static_cast<size_t>((m - 1) * c.ldx + k));
    for (float& v : c.x) v = value(random, static_cast<int>(kind));
    if (kind == TIES || kind == ANY_SIZE)
        for (int64_t i = 0; i < m; i++) put_on_edges(random, c, static_cast<int>(kind), c.x.data() + i * c.ldx);
    const int8_t extremes[] = {-128, -127, 127}, extreme = extremes[random.from_to(0, 2)];
    c.grid = random_grid(random, c.grid.symmetric, std::fabs(c.x[0]));
    if (kind == EXTREMES)
        for (int8_t& w : c.matrix.weight) w = extreme;
    return c;
}

Values expected(const Case& c) {
    Values y(static_cast<size_t>((c.m - 1) * c.ldy + c.matrix.n), UNTOUCHED);
    for (int64_t i = 0; i < c.m; i++)
        linear_plainly(c.x.data() + i * c.ldx, c.matrix, c.grid, c.bias, y.data() + i * c.ldy);
    return y;
}

Values computed(const Kernel& kernel, const Case& c) {
    const int64_t n = c.matrix.n, k = c.matrix.k;
    const Packed packed(kernel.packed_size(n, k)), acts(static_cast<size_t>(kernel.row_stride(k) * c.m));
    Values scale(static_cast<size_t>(c.m)), y(static_cast<size_t>((c.m - 1) * c.ldy + n), UNTOUCHED);
    std::vector<int32_t> zero_point(static_cast<size_t>(c.m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.pack(c.matrix.weight.data(), n, k, packed.data());
    kernel.quantize({c.x.data(), c.ldx, k, -1.0f, nullptr, nullptr}, c.grid, rows, 0, c.m);
    const float* bias = c.bias ? c.matrix.bias.data() : nullptr;
    const Linear job = {rows, packed.data(), c.matrix.scale.data(), bias, y.data(), c.ldy, n, k, CLIPQ_NO_ACTIVATION,
                        false, nullptr};
    kernel.multiply(job, 0, c.m, 0, (n - 1) / kernel.panel_cols + 1);
    return y;
}

// The int8 rows themselves: a value off by one would show in the linear only if its weight is not 0.
bool rows_are_right(const Kernel& kernel, const Case& c) {
    const int64_t k = c.matrix.k;
    Bytes q(static_cast<size_t>(c.m * k));
    Values scale(static_cast<size_t>(c.m));
    std::vector<int32_t> zero_point(static_cast<size_t>(c.m));
    const Source source = {c.x.data(), c.ldx, k, -1.0f, nullptr, nullptr};
    kernel.quantize_int8(source, c.grid, {q.data(), scale.data(), zero_point.data()}, 0, c.m);
    for (int64_t i = 0; i < c.m; i++) {
        const QuantizedRow right = quantized_plainly(c.x.data() + i * c.ldx, k, c.grid);
        const size_t at = static_cast<size_t>(i);
        if (zero_point[at] != right.zero_point || !same({scale[at]}, {right.scale})) return false;
        for (int64_t j = 0; j < k; j++)
            if (q.data()[i * k + j] != right.q[static_cast<size_t>(j)]) return false;
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const Seeds seeds(argc, argv);
    const std::vector<NamedKernel> kernels = testable_kernels();
    Report report;
    seeds.each(report, [&](Random& random) {
        const Case c = make_case(random);
        const Values right = expected(c);
        for (const auto& [name, kernel] : kernels) {
            report.check(same(computed(*kernel, c), right), "a linear", name);
            report.check(rows_are_right(*kernel, c), "quantized rows", name);
        }
    });
    for (const auto& [name, kernel] : kernels)
        std::printf("%s: %lld cases\n", name, static_cast<long long>(seeds.cases));
    std::printf("chosen: path %d\n", clipq_path());
    return report.status();
}
