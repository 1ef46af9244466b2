// The steps straight from their definitions, in plain arithmetic: exact where clipq.h promises exact results, in double
// where it does not.
#pragma once

#include <limits>

#include "testing.h"

namespace {

struct QuantizedRow {
    float scale;
    int zero_point;
    std::vector<int> q;
};

// A given range for rows of about `size`, or none: narrower and wider than they are, with any zero point.
inline Grid random_grid(Random& random, bool symmetric, float size = 1.0f) {
    if (random.chance(2)) return symmetric;
    const float scale = size * std::pow(10.0f, random.value(-4, 1)) / 127;
    if (!(scale > 0) || !std::isfinite(scale)) return symmetric;
    return {symmetric, scale, symmetric ? 0 : static_cast<int32_t>(random.from_to(-128, 127))};
}

// clipq/arithmetic/functional.py's definition.
inline QuantizedRow quantized_plainly(const float* x, int64_t k, const Grid& grid) {
    const bool symmetric = grid.symmetric;
    float low = 0, high = 0;
    bool finite = true;
    for (int64_t i = 0; i < k; i++) {
        finite = finite && std::isfinite(x[i]);
        low = std::fmin(low, x[i]);
        high = std::fmax(high, x[i]);
    }
    QuantizedRow row = {symmetric ? std::fmax(-low, high) / 127 : (high - low) / 255, 0, {}};
    if (grid.scale > 0) row.scale = grid.scale;
    finite = finite && std::isfinite(row.scale);
    row.scale = row.scale == 0 ? 1 : grid.scale > 0 ? row.scale : std::fmax(row.scale, std::numeric_limits<float>::min());
    if (!finite) row.scale = NAN;
    if (finite && !symmetric) row.zero_point = static_cast<int>(std::fmin(-128 - std::nearbyint(low / row.scale), 127));
    if (finite && grid.scale > 0) row.zero_point = grid.zero_point;
    for (int64_t i = 0; i < k; i++) {
        const float q = std::nearbyint(x[i] / row.scale) + static_cast<float>(row.zero_point);
        row.q.push_back(finite ? static_cast<int>(std::fmin(std::fmax(q, symmetric ? -127 : -128), 127)) : 0);
    }
    return row;
}

// A linear's weight as a checkpoint holds it.
struct Matrix {
    int64_t n, k;
    Bytes weight;
    Values scale, bias;

    Matrix(Random& random, int64_t n_, int64_t k_)
        : n(n_), k(k_), weight(random.weights(n * k)), scale(random.values(n, 0, 0.02f)),
          bias(random.values(n, -0.5f, 0.5f)) {}

    clipq_matrix view(const Grid& grid) const {
        return {weight.data(), scale.data(), bias.data(), grid.scale, grid.zero_point};
    }

    Packed packed(int path) const {
        Packed all(clipq_packed_size(path, n, k));
        if (clipq_pack(path, weight.data(), n, k, all.data())) std::abort();
        return all;
    }
};

// One row of the int8 linear into y[n].
inline void linear_plainly(const float* x, const Matrix& matrix, const Grid& grid, bool bias, float* y) {
    const QuantizedRow row = quantized_plainly(x, matrix.k, grid);
    for (int64_t j = 0; j < matrix.n; j++) {
        const int8_t* w = matrix.weight.data() + j * matrix.k;
        int sum = 0;
        for (int64_t t = 0; t < matrix.k; t++) sum += (row.q[static_cast<size_t>(t)] - row.zero_point) * w[t];
        const size_t at = static_cast<size_t>(j);
        y[j] = static_cast<float>(sum) * matrix.scale[at] * row.scale + (bias ? matrix.bias[at] : 0.0f);
    }
}

inline double activated_plainly(double x, int activation) {
    switch (activation) {
        case CLIPQ_GELU: return x * std::erfc(-x / std::sqrt(2.0)) / 2;
        case CLIPQ_GELU_TANH: return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
        case CLIPQ_QUICK_GELU: return x / (1 + std::exp(-1.702 * x));
        case CLIPQ_SILU: return x / (1 + std::exp(-x));
        default: return x;
    }
}

// Within 3e-7, or a few units in the last place of the argument where that is more.
inline bool activation_is_right(float y, float x, int activation) {
    const double right = activated_plainly(x, activation);
    return near(y, right, std::fmax(3e-7, 2.5e-7 * std::fabs(x)));
}

// Of one row: whether q, scale and zero_point are its LayerNorm to half a step, apart from float32's rounding; what lies
// outside a given range is at its end.
inline bool normalized_is_right(const float* x, int64_t k, const float* weight, const float* bias, float eps,
                                const int8_t* q, float scale, int32_t zero_point, int grid_low, bool centered = true) {
    double mean = 0, variance = 0, most = 0, gain = 0;
    for (int64_t j = 0; j < k && centered; j++) mean += x[j] / static_cast<double>(k);
    for (int64_t j = 0; j < k; j++) variance += (x[j] - mean) * (x[j] - mean) / static_cast<double>(k);
    for (int64_t j = 0; j < k; j++) {
        most = std::fmax(most, std::fabs(x[j]));
        gain = std::fmax(gain, std::fabs(weight[j]));
    }
    const double deviation = std::sqrt(variance + eps);
    const double error = 0.5001 * scale + 2e-6 * (gain * (most / deviation + 1) + 1);
    for (int64_t j = 0; j < k; j++) {
        double right = (x[j] - mean) / deviation * weight[j] + bias[j];
        right = std::fmin(std::fmax(right, (grid_low - zero_point) * static_cast<double>(scale)),
                          (127 - zero_point) * static_cast<double>(scale));
        if (!near((q[j] - zero_point) * static_cast<double>(scale), right, error)) return false;
    }
    return true;
}

// Of one head: its norm (unless `weight` is null), within float32's rounding.
inline bool head_is_right(const float* x, const Heads& job, const float* out) {
    const double k = static_cast<double>(job.dim);
    double mean = 0, variance = 0, most = 0, gain = 1;
    for (int64_t j = 0; j < job.dim && job.centered; j++) mean += x[j] / k;
    for (int64_t j = 0; j < job.dim; j++) {
        variance += (x[j] - mean) * (x[j] - mean) / k;
        most = std::fmax(most, std::fabs(x[j]));
        gain = std::fmax(gain, std::fabs(job.weight[j]));
    }
    const double deviation = std::sqrt(variance + job.eps);
    for (int64_t j = 0; j < job.dim; j++) {
        const double right = (x[j] - mean) / deviation * job.weight[j] + (job.bias ? job.bias[j] : 0);
        if (!near(out[j], right, 2e-6 * gain * (most / deviation + 1))) return false;
    }
    return true;
}

// One head turned as clipq.h says, to the bit.
inline void turn_plainly(float* x, int64_t dim, const float* cos, const float* sin, int rotation) {
    const Values before(x, x + dim);
    for (int64_t i = 0; i < dim; i++) {
        const bool pairs = rotation == CLIPQ_ROTATE_PAIRS, first = pairs ? i % 2 == 0 : i < dim / 2;
        const int64_t step = pairs ? 1 : dim / 2;
        const float other = before[static_cast<size_t>(first ? i + step : i - step)];
        x[i] = before[static_cast<size_t>(i)] * cos[i] + (first ? -other : other) * sin[i];
    }
}

// Whether out[dim] is the attention of `query` over `seen` keys. The bound follows the rounding of the dot products,
// which the exponential turns from absolute to relative.
inline bool attended_is_right(const float* query, const float* keys, const float* values, int64_t stride,
                              int64_t seen, int64_t dim, const float* out) {
    constexpr double unit = 1.0 / (1 << 24);
    const double root = std::sqrt(static_cast<double>(dim));
    std::vector<double> share(static_cast<size_t>(seen));
    double sum = 0, size = 0, most = 0;
    for (int64_t j = 0; j < seen; j++) {
        double dot = 0, absolute = 0;
        for (int64_t d = 0; d < dim; d++) {
            const double one = static_cast<double>(query[d]) * keys[j * stride + d];
            dot += one;
            absolute += std::fabs(one);
            most = std::fmax(most, std::fabs(values[j * stride + d]));
        }
        size = std::fmax(size, absolute / root);
        sum += share[static_cast<size_t>(j)] = std::exp(dot / root);
    }
    const double error = most * unit * (2 * size * (root + 4) + 2 * std::sqrt(static_cast<double>(seen)) + 20);
    for (int64_t d = 0; d < dim; d++) {
        double right = 0;
        for (int64_t j = 0; j < seen; j++) right += share[static_cast<size_t>(j)] / sum * values[j * stride + d];
        if (!near(out[d], right, error)) return false;
    }
    return true;
}

// Whether out[dim] is the attention of `query` over `seen` of `keys` keys as csrc/attention_int8.h defines it, whole
// numbers and all, but for the rounding of shares.
inline bool attended_in_integers(const float* query, const float* keys, const float* values, int64_t stride,
                                 int64_t seen, int64_t all, int64_t dim, const float* out) {
    const auto whole = [dim](const float* row, double& scale) {
        float reach = 0;
        for (int64_t d = 0; d < dim; d++) reach = std::fmax(reach, std::fabs(row[d]));
        const float steps = reach > 1e-30f ? 127.0f / reach : 0.0f;
        std::vector<double> found(static_cast<size_t>(dim));
        for (int64_t d = 0; d < dim; d++) found[static_cast<size_t>(d)] = std::nearbyint(row[d] * steps);
        scale = reach / 127.0;
        return found;
    };
    double q_scale, k_scale, most = -INFINITY, sum = 0;
    const std::vector<double> q = whole(query, q_scale);
    std::vector<double> share(static_cast<size_t>(seen));
    for (int64_t j = 0; j < seen; j++) {
        const std::vector<double> k = whole(keys + j * stride, k_scale);
        double dot = 0;
        for (size_t d = 0; d < q.size(); d++) dot += q[d] * k[d];
        most = std::fmax(most, share[static_cast<size_t>(j)] = dot * q_scale * k_scale / std::sqrt(static_cast<double>(dim)));
    }
    for (double& one : share) sum += one = std::exp(one - most);
    // Of all shares together, with 15 bits for the largest or 22 for all: exponents are floats too.
    const double lost = 2e-4 + 4e-7 * std::fabs(most) + 0.6 * static_cast<double>(seen) / std::fmin(32764 * sum, 4.1e6);
    for (int64_t d = 0; d < dim; d++) {
        double reach = 0, right = 0;
        for (int64_t j = 0; j < all; j++) reach = std::fmax(reach, std::fabs(values[j * stride + d]));
        for (int64_t j = 0; j < seen; j++) right += share[static_cast<size_t>(j)] / sum * values[j * stride + d];
        if (!near(out[d], right, reach * (2 * lost + 0.501 / 255) + 1e-30)) return false;
    }
    return true;
}

}  // namespace
