// Every step through the C ABI, on every path of this processor, against plain arithmetic, on one thread.
#include "plain.h"

namespace {

bool normalize_rows_is_right(int path, Random& random) {
    const int64_t k = random.size(200), m = random.size(12), ldx = k + random.from_to(0, 3);
    const float eps = random.chance(2) ? 1e-5f : 1e-6f;
    const Values x = random.values((m - 1) * ldx + k, -2, 5), weight = random.values(k, 0.2f, 2);
    const Values bias = random.values(k, -1, 1);
    Bytes q(static_cast<size_t>(m * k));
    Values scale(static_cast<size_t>(m));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Grid grid = random_grid(random, random.chance(2));
    if (clipq_normalize_rows(path, 1, x.data(), ldx, m, k, weight.data(), bias.data(), eps, grid.symmetric, grid.scale,
                             grid.zero_point, q.data(), scale.data(), zero_point.data()))
        return false;
    for (int64_t i = 0; i < m; i++)
        if (!normalized_is_right(x.data() + i * ldx, k, weight.data(), bias.data(), eps, q.data() + i * k,
                                 scale[static_cast<size_t>(i)], zero_point[static_cast<size_t>(i)], grid.symmetric ? -127 : -128))
            return false;
    return true;
}

// Equal bits where nothing is activated; a NaN or an infinity in one row poisons that row alone.
bool linear_step_is_right(int path, Random& random) {
    const int64_t m = random.size(15), n = random.size(130), k = random.size(140);
    const int64_t ldx = k + random.from_to(0, 3), ldy = n + random.from_to(0, 3);
    const Grid grid = random_grid(random, random.chance(2), 4);
    const bool bias = random.chance(2), residual = random.chance(2);
    const bool layer_scale = random.chance(2);
    const int activation = residual ? 0 : static_cast<int>(random.from_to(0, CLIPQ_ACTIVATIONS - 1));
    const Matrix matrix(random, n, k);
    const Packed packed = matrix.packed(path);
    Values x = random.values((m - 1) * ldx + k, -4, 4);
    const Values before = random.values((m - 1) * ldy + n, -4, 4), scales = random.values(n, -2, 2);
    if (random.chance(4)) x[static_cast<size_t>(random.from_to(0, m - 1) * ldx)] = random.chance(2) ? NAN : INFINITY;
    Values y = before, row(static_cast<size_t>(n));
    if (clipq_linear_step(path, 1, x.data(), ldx, m, packed.data(), matrix.scale.data(),
                          bias ? matrix.bias.data() : nullptr, y.data(), ldy, n, k, grid.symmetric, grid.scale,
                          grid.zero_point, activation, residual,
                          layer_scale ? scales.data() : nullptr))
        return false;
    for (int64_t i = 0; i < m; i++) {
        linear_plainly(x.data() + i * ldx, matrix, grid, bias, row.data());
        for (int64_t j = 0; j < (i + 1 < m ? ldy : n); j++) {
            const float old = before.data()[i * ldy + j], out = y.data()[i * ldy + j];
            if (j >= n && out != old) return false;
            if (j >= n) continue;
            const float plain = row.data()[j];
            if (std::isnan(plain) != std::isnan(out)) return false;
            if (std::isnan(plain)) continue;
            const float right = residual ? old + plain * (layer_scale ? scales.data()[j] : 1.0f) : plain;
            if (activation ? !activation_is_right(out, plain, activation) : out != right) return false;
        }
    }
    return true;
}

bool attention_is_right(int path, Random& random) {
    const int64_t dims[] = {8, 24, 64, 80, 88, 1, 13}, dim = dims[random.from_to(0, 6)], heads = random.from_to(1, 3);
    const std::vector<int64_t> offsets = random.offsets(random.from_to(1, 3), random.chance(32) ? 300 : 40);
    const int64_t batch = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back(), width = heads * dim;
    const bool causal = random.chance(2);
    const int kind = static_cast<int>(random.from_to(0, CLIPQ_ATTENTIONS - 1));
    Values qkv = random.values(rows * 3 * width, -2, 2), y(static_cast<size_t>(rows * width));
    const int64_t poisoned = random.chance(4) ? random.from_to(0, batch - 1) : -1;
    if (poisoned >= 0) qkv[static_cast<size_t>(offsets[static_cast<size_t>(poisoned)] * 3 * width)] = NAN;
    if (clipq_attention(path, 1, kind, qkv.data(), offsets.data(), batch, heads, dim, causal, y.data())) return false;
    for (int64_t s = 0; s < batch; s++) {
        const int64_t begin = offsets[static_cast<size_t>(s)], end = offsets[static_cast<size_t>(s + 1)];
        for (int64_t i = begin; i < end && s != poisoned; i++)
            for (int64_t head = 0; head < width; head += dim) {
                const float *q = qkv.data() + i * 3 * width + head, *out = y.data() + i * width + head;
                const float* keys = qkv.data() + begin * 3 * width + width + head;
                const int64_t all = end - begin, seen = causal ? i - begin + 1 : all;
                if (kind == CLIPQ_FLOAT_ATTENTION
                        ? !attended_is_right(q, keys, keys + width, 3 * width, seen, dim, out)
                        : !attended_in_integers(q, keys, keys + width, 3 * width, seen, all, dim, out))
                    return false;
            }
    }
    return true;
}

bool gather_rows_is_right(int path, Random& random) {
    const int64_t rows = random.size(50), k = random.size(100), count = random.from_to(0, 20);
    const Bytes table = random.weights(rows * k);
    const Values scale = random.values(rows, -1, 1);
    std::vector<int64_t> ids(static_cast<size_t>(count));
    for (int64_t& id : ids) id = random.from_to(0, rows - 1);
    Values y(static_cast<size_t>(count * k));
    if (clipq_gather_rows(path, 1, table.data(), scale.data(), rows, k, ids.data(), count, y.data())) return false;
    for (int64_t i = 0; i < count * k; i++) {
        const int64_t id = ids[static_cast<size_t>(i / k)];
        if (y.data()[i] != table.data()[id * k + i % k] * scale.data()[id]) return false;
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const Seeds seeds(argc, argv);
    Report report;
    seeds.each(report, [&](Random& random) {
        const Random same_for_all = random;
        for (const int path : supported_paths()) {
            random = same_for_all;
            report.check(normalize_rows_is_right(path, random), "clipq_normalize_rows", path);
            report.check(linear_step_is_right(path, random), "clipq_linear_step", path);
            report.check(attention_is_right(path, random), "clipq_attention", path);
            report.check(gather_rows_is_right(path, random), "clipq_gather_rows", path);
        }
    });
    for (const int path : supported_paths())
        std::printf("C ABI on path %d: %lld cases\n", path, static_cast<long long>(seeds.cases));
    return report.status();
}
