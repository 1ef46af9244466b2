// The other steps of every kernel, emulated ones too, against plain arithmetic: LayerNorm on the way to int8, what
// follows a product in its epilogue, and attention. What is read and written is exactly as large as it has to be.
#include "emulated.h"
#include "plain.h"

namespace {

bool layer_norm_is_right(const Kernel& kernel, Random& random) {
    const int64_t k = random.size(150), m = random.from_to(1, 5), ldx = k + random.from_to(0, 3);
    const float middle = random.value(-4, 4), eps = random.chance(2) ? 1e-5f : 1e-2f;
    const Values x = random.values((m - 1) * ldx + k, middle - 3, middle + 3), weight = random.values(k, -2, 2);
    const Values bias = random.values(k, -1, 1);
    const Grid grid = random_grid(random, random.chance(2));
    const bool centered = random.chance(2);
    Bytes q(static_cast<size_t>(m * k));
    Values scale(static_cast<size_t>(m));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    kernel.quantize_int8({x.data(), ldx, k, eps, weight.data(), bias.data(), centered}, grid,
                         {q.data(), scale.data(), zero_point.data()}, 0, m);
    for (int64_t i = 0; i < m; i++)
        if (!normalized_is_right(x.data() + i * ldx, k, weight.data(), bias.data(), eps, q.data() + i * k,
                                 scale[static_cast<size_t>(i)], zero_point[static_cast<size_t>(i)],
                                 grid.symmetric ? -127 : -128, centered))
            return false;
    return true;
}

// Heads through a norm, and turned: each alone against plain arithmetic, and both as one after the other.
bool turning_is_right(const Kernel& kernel, Random& random) {
    const int64_t dim = 2 * random.size(70), heads = random.from_to(1, 3);
    const int rotation = static_cast<int>(random.from_to(1, CLIPQ_ROTATIONS - 1));
    const Values x = random.values(heads * dim, -3, 4), weight = random.values(dim, -2, 2), bias = random.values(dim, -1, 1);
    const Values cos = random.values(dim, -1, 1), sin = random.values(dim, -1, 1);
    Values normed = x, turned = x, both = x;
    Heads norm = {normed.data(), heads, dim, weight.data(), random.chance(2) ? bias.data() : nullptr, 1e-5f, random.chance(2),
                  nullptr, nullptr, rotation};
    kernel.turn(norm);
    kernel.turn({turned.data(), heads, dim, nullptr, nullptr, 0, true, cos.data(), sin.data(), rotation});
    Heads whole = norm;
    whole.x = both.data(), whole.cos = cos.data(), whole.sin = sin.data();
    kernel.turn(whole);
    Values plain = x, after = normed;
    for (int64_t h = 0; h < heads; h++) {
        if (!head_is_right(x.data() + h * dim, norm, normed.data() + h * dim)) return false;
        turn_plainly(plain.data() + h * dim, dim, cos.data(), sin.data(), rotation);
        turn_plainly(after.data() + h * dim, dim, cos.data(), sin.data(), rotation);
    }
    return same(turned, plain) && same(both, after);
}

bool gate_is_right(const Kernel& kernel, Random& random) {
    const int64_t k = random.size(150);
    const int activation = static_cast<int>(random.from_to(0, CLIPQ_ACTIVATIONS - 1));
    const Values before = random.values(2 * k, -6, 6);
    Values row = before;
    kernel.gate(row.data(), k, activation);
    for (int64_t i = 0; i < k; i++) {
        const float open = before.data()[i], value = before.data()[k + i];
        const double right = activated_plainly(open, activation) * value;
        if (!near(row.data()[i], right, std::fmax(3e-7, 4e-7 * std::fabs(open)) * std::fabs(value))) return false;
        if (row.data()[k + i] != value) return false;
    }
    return true;
}

bool epilogue_is_right(const Kernel& kernel, Random& random) {
    const int64_t m = random.size(15), n = random.size(140), k = random.size(40), ldy = n + random.from_to(0, 4);
    const Matrix matrix(random, n, k);
    const size_t size = static_cast<size_t>((m - 1) * ldy + n);
    const Values x = random.values(m * k, -3, 3), layer_scale = random.values(n, -2, 2);
    const Values y = random.values(static_cast<int64_t>(size), -5, 5);
    const Packed packed(kernel.packed_size(n, k)), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    Values scale(static_cast<size_t>(m));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.pack(matrix.weight.data(), n, k, packed.data());
    kernel.quantize({x.data(), k, k, -1.0f, nullptr, nullptr}, random_grid(random, random.chance(2)), rows, 0, m);
    const auto multiplied = [&](int activation, bool accumulate, const float* layer_scales) {
        Values out = y;
        kernel.multiply({rows, packed.data(), matrix.scale.data(), matrix.bias.data(), out.data(), ldy, n, k,
                         activation, accumulate, layer_scales}, 0, m, 0, (n - 1) / kernel.panel_cols + 1);
        return out;
    };
    const Values plain = multiplied(CLIPQ_NO_ACTIVATION, false, nullptr);
    const Values added = multiplied(CLIPQ_NO_ACTIVATION, true, nullptr);
    const Values scaled = multiplied(CLIPQ_NO_ACTIVATION, true, layer_scale.data());
    const int activation = static_cast<int>(random.from_to(1, CLIPQ_ACTIVATIONS - 1));
    const Values active = multiplied(activation, false, nullptr);
    for (size_t i = 0; i < size; i++) {
        const size_t column = i % static_cast<size_t>(ldy);
        const bool between = column >= static_cast<size_t>(n);
        if (between ? plain[i] != y[i] || added[i] != y[i] || scaled[i] != y[i] || active[i] != y[i]
                    : added[i] != y[i] + plain[i] || scaled[i] != y[i] + plain[i] * layer_scale[column] ||
                          !activation_is_right(active[i], plain[i], activation))
            return false;
    }
    return true;
}

bool attention_is_right(const Kernel& kernel, Random& random) {
    const int64_t queries = random.size(60), keys = random.from_to(at_least(queries - 1, 1), 70), dim = random.size(90);
    const int64_t visible = random.from_to(1, keys), ldq = dim + random.from_to(0, 5);
    const int64_t ldkv = dim + random.from_to(0, 5), ldo = dim + random.from_to(0, 5);
    const Values q = random.values((queries - 1) * ldq + dim, -2, 2), k = random.values((keys - 1) * ldkv + dim, -2, 2);
    const Values v = random.values((keys - 1) * ldkv + dim, -1, 1);
    Values out(static_cast<size_t>((queries - 1) * ldo + dim), UNTOUCHED);
    Values scratch(static_cast<size_t>(kernel.attention_scratch(keys, dim)), NAN);
    kernel.attend({q.data(), k.data(), v.data(), ldq, ldkv, out.data(), ldo, queries, keys, dim, visible},
                  scratch.data());
    for (int64_t i = 0; i < queries; i++) {
        if (!attended_is_right(q.data() + i * ldq, k.data(), v.data(), ldkv, at_most(keys, visible + i), dim,
                               out.data() + i * ldo))
            return false;
        for (int64_t d = dim; d < ldo && i + 1 < queries; d++)
            if (out.data()[i * ldo + d] != UNTOUCHED) return false;
    }
    return true;
}

// Scores of many kinds: far apart, all alike, one key that takes nearly everything, logits beyond any model's.
bool integer_attention_is_right(const Kernel& kernel, Random& random) {
    const int64_t queries = random.size(40), dim = random.size(90), longest = random.chance(20) ? 1100 : 130;
    const int64_t keys = random.from_to(at_least(queries - 1, 1), at_least(longest, queries));
    const int64_t visible = random.from_to(1, keys), ldq = dim + random.from_to(0, 5);
    const int64_t ldkv = dim + random.from_to(0, 5), ldo = dim + random.from_to(0, 5);
    const float sizes[] = {0.0f, 1e-35f, 0.1f, 1.0f, 4.0f, 100.0f, 1e12f}, size = sizes[random.from_to(0, 6)];
    Values q = random.values((queries - 1) * ldq + dim, -2, 2), k = random.values((keys - 1) * ldkv + dim, -size, size);
    const Values v = random.values((keys - 1) * ldkv + dim, -1, 1);
    if (random.chance(3))
        for (int64_t d = 0; d < dim; d++) k[static_cast<size_t>(random.from_to(0, keys - 1) * ldkv + d)] = 3 * q[static_cast<size_t>(d)];
    Values out(static_cast<size_t>((queries - 1) * ldo + dim), UNTOUCHED);
    Values scratch(static_cast<size_t>(kernel.integer_attention_scratch(keys, dim)), NAN);
    kernel.attend_integers({q.data(), k.data(), v.data(), ldq, ldkv, out.data(), ldo, queries, keys, dim, visible},
                           scratch.data());
    for (int64_t i = 0; i < queries; i++) {
        if (!attended_in_integers(q.data() + i * ldq, k.data(), v.data(), ldkv, at_most(keys, visible + i), keys, dim,
                                  out.data() + i * ldo))
            return false;
        for (int64_t d = dim; d < ldo && i + 1 < queries; d++)
            if (out.data()[i * ldo + d] != UNTOUCHED) return false;
    }
    return true;
}

// What is not finite makes NaNs of the queries that see it, and of no others.
bool integers_pass_on_odd_values(const Kernel& kernel, Random& random) {
    const int64_t rows = random.size(70), dim = random.size(40), ld = 3 * dim, odd = random.from_to(0, rows - 1);
    Values qkv = random.values(rows * ld, -2, 2), out(static_cast<size_t>(rows * dim));
    const int64_t part = random.from_to(0, 2);
    qkv[static_cast<size_t>(odd * ld + part * dim + random.from_to(0, dim - 1))] = random.chance(2) ? NAN : -INFINITY;
    Values scratch(static_cast<size_t>(kernel.integer_attention_scratch(rows, dim)), NAN);
    const float* x = qkv.data();
    kernel.attend_integers({x, x + dim, x + 2 * dim, ld, ld, out.data(), dim, rows, rows, dim, 1}, scratch.data());
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < dim; d++)
            if (std::isnan(out.data()[i * dim + d]) != (part == 0 ? i == odd : i >= odd)) return false;
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const Seeds seeds(argc, argv);
    const std::vector<NamedKernel> kernels = testable_kernels();
    Report report;
    seeds.each(report, [&](Random& random) {
        const Random same_for_all = random;
        for (const auto& [name, kernel] : kernels) {
            random = same_for_all;
            report.check(layer_norm_is_right(*kernel, random), "a norm", name);
            report.check(turning_is_right(*kernel, random), "turning heads", name);
            report.check(gate_is_right(*kernel, random), "a gate", name);
            report.check(epilogue_is_right(*kernel, random), "an epilogue", name);
            report.check(attention_is_right(*kernel, random), "attention", name);
            report.check(integer_attention_is_right(*kernel, random), "integer attention", name);
            report.check(integers_pass_on_odd_values(*kernel, random), "integer attention of odd values", name);
        }
    });
    for (const auto& [name, kernel] : kernels)
        std::printf("steps of %s: %lld cases\n", name, static_cast<long long>(seeds.cases));
    return report.status();
}
